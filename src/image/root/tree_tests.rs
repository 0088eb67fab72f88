use super::*;
use crate::image::tar::Member;

fn member(path: &str, kind: Kind, link: &str) -> Member {
    let (path, link) = (path.as_bytes().to_vec(), link.as_bytes().to_vec());
    Member { path, kind, link, size: 0, mtime: 0 }
}

fn file(path: &str) -> Member {
    member(path, Kind::File, "")
}

fn dir(path: &str) -> Member {
    Member::directory(path.as_bytes())
}

fn merge(layers: &[&[Member]]) -> Result<Plan, TarError> {
    let mut tree = Tree::default();
    for (layer, members) in layers.iter().enumerate() {
        for (number, member) in members.iter().enumerate() {
            tree.apply(layer, number, member.clone(), true)?;
        }
    }
    Ok(tree.finish())
}

/// Each file with its layer, as `layer:name=name`.
fn merged(layers: &[&[Member]]) -> String {
    let plan = merge(layers).unwrap();
    let mut all: Vec<_> = plan.nodes().iter().collect();
    all.sort_by_key(|node| node.names.clone());
    let text = |node: &&Node| {
        let names: Vec<_> = node.names.iter().map(|name| String::from_utf8_lossy(name)).collect();
        format!("{}:{}", node.layer, names.join("="))
    };
    all.iter().map(text).collect::<Vec<_>>().join(" ")
}

#[test]
fn upper_layers_replace_and_directories_keep_what_is_in_them() {
    let lower = [dir("etc"), file("etc/a"), file("etc/b"), dir("opt"), file("opt/x"), file("var")];
    let upper = [dir("etc"), file("etc/b"), file("opt"), dir("var"), file("var/y")];
    assert_eq!(merged(&[&lower, &upper]), "1:etc 0:etc/a 1:etc/b 1:opt 1:var 1:var/y");
}

#[test]
fn whiteouts_remove_what_lower_layers_have_and_nothing_of_their_own() {
    let lower = [dir("a"), file("a/1"), file("a/2"), dir("ab"), file("ab/3"), dir("b"), file("b/4")];
    let named = [file(".wh.a"), file("ab/.wh.3"), file("ab/5"), file("b/.wh..wh.plnk")];
    assert_eq!(merged(&[&lower, &named]), "0:ab 1:ab/5 0:b 0:b/4");
    // A directory becomes a file, and what was in it is removed one by one.
    assert_eq!(merged(&[&lower[3..5], &[file("ab"), file("ab/.wh.3")]]), "1:ab");
    // Whether the marker comes before or after what the layer puts there.
    for opaque in
        [[dir("a"), file("a/.wh..wh..opq"), file("a/6")], [file("a/6"), dir("a"), file("a/.wh..wh..opq")]]
    {
        assert_eq!(merged(&[&lower[..3], &opaque]), "1:a 1:a/6");
    }
}

#[test]
fn a_hard_link_keeps_the_content_whatever_becomes_of_the_first_name() {
    let lower = [file("a"), member("b", Kind::HardLink, "a"), member("c", Kind::HardLink, "b")];
    assert_eq!(merged(&[&lower]), "0:a=b=c");
    assert_eq!(merged(&[&lower, &[file("a"), file(".wh.b")]]), "1:a 0:c");
    assert_eq!(merged(&[&lower[..1], &[member("z", Kind::HardLink, "a")]]), "0:a=z");
    let lost = merge(&[&[member("b", Kind::HardLink, "a")]]).unwrap_err().to_string();
    assert!(lost.contains("`b` is a hard link to `a`"), "{lost}");
}

#[test]
fn links_on_the_way_are_followed_inside_the_root_alone() {
    let base = [
        dir("usr"),
        dir("usr/lib"),
        member("lib", Kind::Symlink, "usr/lib"),
        member("l", Kind::Symlink, "/lib"),
    ];
    assert_eq!(
        merged(&[&base, &[file("lib/x"), file("l/y")]]),
        "0:l 0:lib 0:usr 0:usr/lib 1:usr/lib/x 1:usr/lib/y"
    );
    let refused = |link: &str| {
        let layer = [member("out", Kind::Symlink, link), file("out/etc/passwd")];
        merge(&[&layer]).unwrap_err().to_string()
    };
    for link in ["..", "../../tmp", "/../x", "usr/../../x"] {
        assert!(
            refused(link).contains("`out/etc/passwd` is placed through `out`, a link that leads out"),
            "{link}"
        );
    }
    assert!(refused("out").contains("in a circle"));
    let through_file = merge(&[&[file("a"), file("a/b")]]).unwrap_err().to_string();
    assert!(through_file.contains("`a`, which is no directory"), "{through_file}");
}

#[test]
fn directories_without_a_member_are_implied_and_what_belongs_to_a_running_system_is_left_out() {
    let plan = merge(&[&[file("a/b/c"), file("proc/1"), dir("x"), file("x/y")]]).unwrap();
    assert_eq!(plan.implied, [b"a".to_vec(), b"a/b".to_vec()]);
    assert!(plan.nodes().iter().all(|node| !node.names[0].starts_with(b"proc")));
}
