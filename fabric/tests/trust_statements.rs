//! Signed statements against somebody who would like another one to be believed.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

use fabric::content::BlobRef;
use fabric::id::{BlobId, Hash, ObjectId};
use fabric::trust::{
    Arch, Freshness, Grant, Loader, Membership, Operator, OperatorKey, Release, RootFormat, RootKey,
    RootMode, Settings, Signed, SignedRelease, SignedSettings, TrustError, encode_memberships, references,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn root(seed: u8) -> RootKey {
    RootKey::from_bytes(&[seed; 32])
}

fn operator(root: &RootKey, seed: u8) -> Operator {
    let key = OperatorKey::from_bytes(&[seed; 32]);
    let grant = root.grant(key.public(), "ann").unwrap();
    Operator::new(key, grant).unwrap()
}

fn blob(seed: u8) -> BlobRef {
    BlobRef { blob: BlobId(Hash::of(&[seed])), size: 1000, index: ObjectId(Hash::of(&[seed, 1])) }
}

fn release(generation: u64) -> Release {
    Release {
        name: "debian".into(),
        version: format!("13.{generation}"),
        generation,
        arch: Arch::X86_64,
        kernel: blob(1),
        kernel_version: "6.12.57+deb13-amd64".into(),
        first_stage: blob(2),
        root: blob(3),
        root_format: RootFormat::Squashfs,
        loaders: vec![Loader { name: "snponly.efi".into(), blob: blob(4) }],
        cmdline: "console=ttyS0".into(),
        root_mode: RootMode::Overlay,
        memory_needed_mib: 768,
    }
}

#[test]
fn what_an_operator_signs_the_trust_root_verifies() {
    let root = root(1);
    let signed = Signed::sign(&operator(&root, 2), &release(7)).unwrap();
    let received = SignedRelease::decode(signed.bytes()).unwrap();
    let verified = received.verify_signer(&root.public()).unwrap();
    assert_eq!((verified.statement, verified.operator_name.as_str()), (release(7), "ann"));
    assert_eq!(received.object_id(), ObjectId(Hash::of(signed.bytes())));
    let settings = Settings::default_for_bare_switch("lab");
    let signed = Signed::sign(&operator(&root, 2), &settings).unwrap();
    assert_eq!(SignedSettings::decode(signed.bytes()).unwrap().verify(&root.public()).unwrap(), settings);
}

#[test]
fn what_a_statement_names_is_told_and_never_guessed() {
    let root = root(1);
    let signed = Signed::sign(&operator(&root, 2), &release(7)).unwrap().bytes().to_vec();
    let mut named = references(&signed).unwrap();
    named.sort_by_key(|blob| blob.blob);
    let mut all: Vec<_> = [1, 2, 3, 4].map(blob).to_vec();
    all.sort_by_key(|blob| blob.blob);
    assert_eq!(named, all);
    let settings = Signed::sign(&operator(&root, 2), &Settings::default_for_bare_switch("lab")).unwrap();
    assert_eq!(references(settings.bytes()).unwrap(), []);
    let member = Membership { name: "a".into(), node: None, generation: 1 };
    let member = Signed::sign(&operator(&root, 2), &member).unwrap();
    assert_eq!(references(member.bytes()).unwrap(), []);
    let list = |statements: &[bytes::Bytes]| encode_memberships(statements).unwrap();
    assert_eq!(references(&list(&[member.bytes().clone()])).unwrap(), []);
    references(&fabric::codec::encode("list", &vec![b"text".to_vec()]).unwrap()).unwrap_err();
    // Of another kind, of a later format, cut off, something else: unknown is not the same as nothing.
    let changed = |at: usize| {
        let mut bytes = signed.clone();
        bytes[at] += 100;
        bytes
    };
    for unknown in [&changed(8)[..], &changed(9), &signed[..signed.len() / 2], b"BFSIGNED", b"text", b""] {
        references(unknown).unwrap_err();
    }
}

#[test]
fn every_changed_byte_and_every_cut_is_refused() {
    let root = root(1);
    let signed = Signed::sign(&operator(&root, 2), &release(7)).unwrap();
    let accepted =
        |bytes: &[u8]| SignedRelease::decode(bytes).and_then(|it| it.verify(&root.public())).is_ok();
    assert!(accepted(signed.bytes()));
    for at in 0..signed.bytes().len() {
        for mask in [0x01, 0x80, 0xff] {
            let mut bytes = signed.bytes().to_vec();
            bytes[at] ^= mask;
            assert!(!accepted(&bytes), "byte {at} changed by {mask:#x}");
        }
        assert!(!accepted(&signed.bytes()[..at]), "cut to {at} bytes");
    }
    assert!(!accepted(&[signed.bytes(), &b"\0"[..]].concat()));
}

#[test]
fn another_root_and_a_grant_of_its_own_do_not_count() {
    let (ours, theirs) = (root(1), root(9));
    let signed = Signed::sign(&operator(&theirs, 2), &release(7)).unwrap();
    let error = signed.verify(&ours.public()).unwrap_err();
    assert!(matches!(error, TrustError::OtherFabric { .. }), "{error}");
    assert!(error.to_string().contains(&ours.public().fingerprint()), "{error}");

    // Somebody grants herself a key in the name of our root.
    let key = OperatorKey::from_bytes(&[2; 32]);
    let mut forged = theirs.grant(key.public(), "eve").unwrap().bytes().to_vec();
    forged[..32].copy_from_slice(ours.public().as_bytes());
    let forged = Grant::decode(&forged).unwrap();
    assert!(matches!(forged.verify(&ours.public(), "release"), Err(TrustError::BadGrant { .. })));
    assert!(matches!(Operator::new(key, forged), Err(TrustError::BadGrant { .. })));

    // A good grant is of no use with another key.
    let grant = ours.grant(OperatorKey::from_bytes(&[2; 32]).public(), "ann").unwrap();
    assert!(Operator::new(OperatorKey::from_bytes(&[3; 32]), grant).is_err());
}

#[test]
fn one_operators_grant_does_not_carry_anothers_signature() {
    let root = root(1);
    let (ann, eve) = (operator(&root, 2), operator(&root, 3));
    let by_ann = Signed::sign(&ann, &release(7)).unwrap();
    let grant_at = 11;
    let mut mixed = by_ann.bytes().to_vec();
    mixed[grant_at..grant_at + eve.grant().bytes().len()].copy_from_slice(eve.grant().bytes());
    let error = SignedRelease::decode(&mixed).unwrap().verify(&root.public()).unwrap_err();
    assert!(matches!(error, TrustError::BadSignature { .. }), "{error}");
}

#[test]
fn kinds_and_formats_are_told_apart() {
    let root = root(1);
    let signed = Signed::sign(&operator(&root, 2), &Settings::default_for_bare_switch("lab")).unwrap();
    let error = SignedRelease::decode(signed.bytes()).unwrap_err();
    assert!(matches!(error, TrustError::Kind { what: "release", kind: 2 }), "{error}");
    let mut bytes = signed.bytes().to_vec();
    bytes[8] = 1;
    assert!(
        SignedRelease::decode(&bytes).unwrap().verify(&root.public()).is_err(),
        "a kind cannot be changed"
    );
    bytes[9] = 200;
    let error = SignedRelease::decode(&bytes).unwrap_err().to_string();
    assert!(error.contains("format 200") && error.contains("same program version"), "{error}");
    let error = SignedSettings::decode(&vec![0; 1 << 20]).unwrap_err();
    assert!(matches!(error, TrustError::TooLong { .. }), "{error}");
}

#[test]
fn older_generations_are_refused() {
    let mut freshness = Freshness::new();
    assert!(freshness.release(&release(5)).unwrap());
    assert!(!freshness.release(&release(5)).unwrap());
    assert!(freshness.release(&release(8)).unwrap());
    let error = freshness.release(&release(5)).unwrap_err();
    assert!(matches!(error, TrustError::Replayed { generation: 5, newest: 8, .. }), "{error}");
    // Other images and settings count by themselves.
    let other = Release { name: "busybox".into(), ..release(1) };
    assert!(freshness.release(&other).unwrap());
    let settings = Settings::default_for_bare_switch("lab");
    assert!(freshness.settings(&settings).unwrap());
    freshness.require_release("busybox", 3);
    freshness.require_release("debian", 3);
    assert!(freshness.release(&other).is_err());
    assert_eq!((freshness.newest_release("debian"), freshness.newest_release("none")), (8, 0));
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in vec(any::<u8>(), 0..400)) {
        let root = root(1).public();
        let grant = root_grant();
        let head = [&b"BFSIGNED\x01\x01"[..], &[grant.len() as u8], &grant].concat();
        for bytes in [bytes.clone(), [&b"BFSIGNED\x01\x01"[..], &bytes].concat(), [head, bytes].concat()] {
            prop_assert!(SignedRelease::decode(&bytes).and_then(|signed| signed.verify(&root)).is_err());
            let _ = Grant::decode(&bytes);
        }
    }

    #[test]
    fn correctly_signed_garbage_never_panics(payload in vec(any::<u8>(), 0..200)) {
        let _ = <Release as fabric::trust::Statement>::from_payload(1, &payload);
        let _ = <Settings as fabric::trust::Statement>::from_payload(1 + payload.len() as u8 % 2, &payload);
        let _ = <Membership as fabric::trust::Statement>::from_payload(1, &payload);
    }
}

fn root_grant() -> Vec<u8> {
    operator(&root(1), 2).grant().bytes().to_vec()
}
