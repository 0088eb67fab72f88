//! Machines that really boot: a kernel by QEMU itself, and both kinds of firmware as far as their first DHCP message.

mod common;

use common::{A, BOOT, LONG, initramfs, kernel, two_hosts};
use netlab::pcap::DhcpKind;
use netlab::{
    DirectKernel, Error, Firmware, Lab, LinkShape, MachineSpec, Result, Uefi, UefiBoot, ready_or_skip,
};

fn direct(directory: &std::path::Path, script: &str) -> Firmware {
    Firmware::Kernel(DirectKernel::new(&kernel(), &initramfs(directory, script), "console=ttyS0 panic=-1"))
}

#[test]
fn a_kernel_boots_and_speaks_on_both_ports() -> Result<()> {
    if !ready_or_skip()? {
        return Ok(());
    }
    let files = tempfile::tempdir().unwrap();
    let script = r#"echo '{"event":"up","kernel":"'$(uname -r)'"}' > /dev/ttyS1
        echo 'not an event' > /dev/ttyS1
        echo 'MARKER: type a word'
        read word; echo "you typed <$word>"
        echo '{"event":"typed"}' > /dev/ttyS1
        poweroff -f"#;
    let lab = Lab::new("direct")?;
    let switch = lab.switch("sw0")?;
    let machine =
        lab.machine(&MachineSpec::new("a", direct(files.path(), script)).memory_mib(256), &switch)?;
    let up = machine.events().wait_for_name("up", BOOT)?;
    assert!(up.text("kernel").is_some_and(|version| version.ends_with("cloud-amd64")), "{up}");
    machine.console().wait_for("MARKER", BOOT)?;
    machine.console().send("hello\n")?;
    machine.console().wait_for("you typed <hello>", LONG)?;
    machine.events().wait_for_name("typed", LONG)?;
    assert!(machine.wait_for_end(LONG)?.success());
    assert!(!machine.is_running());
    assert_eq!(lab.timeline().unreadable()["a"].samples, ["not an event"]);
    let error = machine.console().wait_for("more", BOOT).unwrap_err();
    assert!(matches!(error, Error::InVain { .. }), "{error}");
    let error = machine.events().wait_for_name("more", BOOT).unwrap_err();
    assert!(matches!(error, Error::InVain { .. }), "{error}");
    lab.tear_down()
}

#[test]
fn a_panic_ends_every_wait_and_the_name_can_be_used_again() -> Result<()> {
    if !ready_or_skip()? {
        return Ok(());
    }
    let files = tempfile::tempdir().unwrap();
    let lab = Lab::new("panic")?;
    let switch = lab.switch("sw0")?;
    let spec = MachineSpec::new("a", direct(files.path(), "exit 3")).memory_mib(256).reboots();
    let first = lab.machine(&spec, &switch)?;
    assert!(lab.machine(&spec, &switch).is_err());
    let error = first.events().wait_for_name("up", BOOT).unwrap_err();
    assert!(error.to_string().contains("Kernel panic"), "{error}");
    first.delete()?;
    assert!(!first.is_running() && !first.namespace().exists());
    first.delete()?;
    let second = lab.machine(&spec, &switch)?;
    let error = second.console().wait_for("login:", BOOT).unwrap_err();
    assert!(error.to_string().contains("Kernel panic"), "{error}");
    lab.tear_down()
}

#[test]
fn the_bios_asks_for_an_address() -> Result<()> {
    firmware_asks(Firmware::Bios, "iPXE", b"PXEClient:Arch:00000")
}

/// Both directions of a machine's cable, with any server that is at hand.
#[test]
fn the_bios_runs_a_script_of_a_host() -> Result<()> {
    if !ready_or_skip()? {
        return Ok(());
    }
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("boot.ipxe"), "#!ipxe\necho SCRIPT of ${next-server}\nshell\n").unwrap();
    let lab = Lab::new("script")?;
    let switch = lab.switch("sw0")?;
    let (origin, _) = two_hosts(&lab, &switch)?;
    let capture = switch.capture("all", "")?;
    let mut dnsmasq = origin.command("dnsmasq");
    dnsmasq
        .args([
            "--keep-in-foreground",
            "--log-facility=-",
            "--user=root",
            "--port=0",
            "--no-ping",
            "--leasefile-ro",
        ])
        .args(["--dhcp-range=10.77.0.100,10.77.0.200", "--dhcp-boot=boot.ipxe", "--enable-tftp"])
        .args(["--dhcp-option=encap:175,176,1b", "--dhcp-authoritative", "--pid-file="])
        .arg(format!("--tftp-root={}", files.path().display()));
    let server = origin.spawn("dnsmasq", &mut dnsmasq)?;
    server.wait_for_log("TFTP root is", LONG)?;
    let machine = lab.machine(&MachineSpec::new("m", Firmware::Bios), &switch)?;
    machine.port().shape(LinkShape::rate(50_000_000))?;
    let found = machine.console().wait_for("SCRIPT of 10.77.0.1", BOOT)?;
    assert!(found.at < lab.elapsed());

    let trace = capture.trace()?;
    let kinds: Vec<_> = trace.dhcp_of(machine.mac()).map(|seen| seen.kind).collect();
    let count = |wanted| kinds.iter().filter(|&&kind| kind == wanted).count();
    assert_eq!(count(DhcpKind::Discover), count(DhcpKind::Offer), "{trace}");
    assert!(trace.dhcp.iter().filter(|seen| seen.op == 2).all(|seen| seen.server_id() == Some(A)), "{trace}");
    let request = trace.requests_for("boot.ipxe").next().expect("the script was asked for");
    assert_eq!((request.method, request.server), ("RRQ", A));
    assert!(trace.sum(|flow| flow.source == A && flow.destination == request.client).payload > 0, "{trace}");
    lab.tear_down()
}

#[test]
fn uefi_asks_for_an_address() -> Result<()> {
    firmware_asks(Firmware::uefi(), "PXE over IPv4", b"PXEClient:Arch:00007")
}

#[test]
fn uefi_asks_for_http_boot() -> Result<()> {
    let uefi = Uefi { boot: UefiBoot::HttpV4, ..Uefi::default() };
    firmware_asks(Firmware::Uefi(uefi), "HTTP Boot over IPv4", b"HTTPClient:Arch:00016")
}

fn firmware_asks(firmware: Firmware, banner: &str, vendor_class: &[u8]) -> Result<()> {
    if !ready_or_skip()? {
        return Ok(());
    }
    let lab = Lab::new(firmware.label())?;
    let switch = lab.switch("sw0")?;
    let capture = switch.capture("dhcp", "udp port 67 or udp port 68")?;
    let machine =
        lab.machine(&MachineSpec::new("a", firmware).uuid("11111111-2222-3333-4444-555555555555"), &switch)?;
    machine.port().shape(LinkShape::rate(100_000_000))?;
    machine.console().wait_for(banner, BOOT)?;
    capture.wait_for("the machine's DISCOVER", BOOT, |trace| {
        let mut own = trace.dhcp_of(machine.mac()).filter(|seen| seen.kind == DhcpKind::Discover);
        own.find(|seen| seen.options.get(&60).is_some_and(|class| class.starts_with(vendor_class)))
            .map(|_| ())
    })?;
    machine.set_carrier(false)?;
    machine.kill()?;
    assert!(!machine.is_running());
    // Its cable can still be asked.
    assert!(machine.port().counters()?.from_node.packets > 0);
    lab.tear_down()
}
