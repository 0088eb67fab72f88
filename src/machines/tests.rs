use fabric::trust::Settings;
use pxe::dhcp::class::ClientClass;
use pxe::dhcp::loader::Loader;

use super::*;

fn settings() -> Settings {
    Settings::default_for_bare_switch("test")
}

fn read(text: &str) -> Machines {
    Machines::read(text, &settings()).unwrap_or_else(|error| panic!("{error}"))
}

fn problems(text: &str) -> Vec<String> {
    let error = Machines::read(text, &settings()).unwrap_err();
    error.downcast::<Problems>().unwrap().0.iter().map(ToString::to_string).collect()
}

/// The file of docs/dhcp.md.
fn example() -> String {
    let page = include_str!("../../docs/dhcp.md");
    let (_, rest) = page.split_once("```toml\n").expect("an example");
    rest.split_once("```").expect("its end").0.to_owned()
}

#[test]
fn the_documented_example_means_what_is_said_of_it() {
    let machines = read(&example());
    assert_eq!((machines.len(), machines.strangers, machines.relayed.len()), (2, false, 1));
    let n1: ClientKey = "52:54:00:00:00:01".parse().unwrap();
    assert_eq!(machines.name_of(Some(n1), None), Some("n1"));
    assert_eq!(machines.kernel_args(Some("n1")), "console=ttyS0 bootfabric.root=zram quiet");
    assert_eq!(machines.kernel_args(None), "console=ttyS0");
    let config = machines.dhcp([10, 77, 0, 1].into(), n1);
    let reservation = config.reservations.iter().find(|known| known.client == n1.into()).unwrap();
    assert_eq!(reservation.address, Some([10, 77, 0, 10].into()));
    assert_eq!(reservation.told.options[&42], [10, 77, 0, 2]);
    let http = "uefi-http-16".parse::<ClientClass>().unwrap();
    assert_eq!(reservation.told.loaders.get(http), Some(&Loader::Http("uki.efi".into())));
    assert_eq!(machines.prefix_of([10, 88, 0, 9].into()), 24);
    assert_eq!(machines.prefix_of([192, 0, 2, 1].into()), 22);
    assert_eq!(machines.gateway_of([10, 88, 0, 9].into(), None), Some([10, 88, 0, 1].into()));
    assert_eq!(machines.gateway_of([10, 77, 0, 10].into(), Some("n1")), Some([10, 77, 0, 1].into()));
    assert_eq!(machines.gateway_of([192, 0, 2, 1].into(), None), None);
}

#[test]
fn the_router_is_the_one_that_dhcp_names() {
    let machines = read(
        "all.options.router = '10.77.0.3'\n\
         [subnet.'10.88.0.0/24']\npools = '10.88.0.10-10.88.0.99'\nrouters = ['10.88.0.1', '10.88.0.2']\n\
         [group.a]\noptions.routers = ['10.88.0.4', '10.88.0.5']\n\
         [node.n1]\nmac = '52:54:00:00:00:01'\ngroup = 'a'\n\
         [node.n2]\nmac = '52:54:00:00:00:02'\noptions.3 = '10.88.0.6'\n",
    );
    let gateway = |address: [u8; 4], name| machines.gateway_of(address.into(), name).map(|ip| ip.octets()[3]);
    assert_eq!(gateway([10, 77, 0, 9], None), Some(3));
    assert_eq!(gateway([10, 88, 0, 9], None), Some(1));
    assert_eq!(gateway([10, 88, 0, 9], Some("n1")), Some(4));
    assert_eq!(gateway([10, 88, 0, 9], Some("n2")), Some(6));
    let bare = Machines::none(&settings()).unwrap();
    assert_eq!(bare.gateway_of([10, 77, 0, 9].into(), None), None);
}

#[test]
fn an_empty_file_says_what_no_file_says() {
    let (empty, none) = (read(""), Machines::none(&settings()).unwrap());
    let config = |machines: &Machines| {
        format!("{:?}", machines.dhcp([10, 77, 0, 1].into(), ClientKey::ethernet([2; 6])))
    };
    assert_eq!(config(&empty), config(&none));
    assert!(!empty.tells_machines_apart());
}

#[test]
fn groups_are_layers_and_the_node_is_on_top() {
    let machines = read(
        "all.options.mtu = 1400\nall.options.router = '10.77.0.1'\n\
         [group.a]\nkernel-args = 'x=1'\noptions = {mtu = 1500, 224 = 'a'}\nlease = 60\n\
         [group.b]\nkernel-args = 'x=2'\noptions.mtu = 9000\n\
         [node.n]\nmac = ['02:00:00:00:00:01', '02:00:00:00:00:02']\ngroup = ['a', 'b']\noptions.225 = 'n'\nkernel-args = 'y'",
    );
    assert_eq!(machines.kernel_args(Some("n")), "x=1 x=2 y");
    let [one, two] = &machines.reservations[..] else { panic!("{machines:?}") };
    assert_eq!(one.told, two.told);
    assert_eq!(one.told.options.keys().copied().collect::<Vec<_>>(), [26, 224, 225]);
    assert_eq!(one.told.options[&26], [0x23, 0x28]);
    assert_eq!(one.told.times.unwrap().plain, Duration::from_secs(60));
    assert_eq!(one.told.times.unwrap().boot, Duration::from_secs(600));
    assert_eq!(machines.link.options.len(), 2);
    assert_eq!(machines.link().ranges[0].0, settings().pool_first);
}

#[test]
fn each_mistake_names_line_and_field_and_what_to_do() {
    let node = "[node.n1]\nmac = '52:54:00:00:00:01'\n";
    for (text, line, field, word) in [
        ("[all\n", 1, "", "expected"),
        ("\nstranger = true", 2, "", "stranger"),
        ("strangers = 'maybe'", 1, "", "yes or no"),
        (
            "[subnet.'10.77.0.1/22']\npools = '10.77.0.2-10.77.0.9'",
            1,
            "subnet.\"10.77.0.1/22\"",
            "10.77.0.0/22 is",
        ),
        ("[subnet.'10.77.1.0/24']\npools = '10.77.1.2-10.77.1.9'", 1, "subnet", "overlaps"),
        ("[subnet.'10.88.0.0/24']\nrouters = '10.88.0.1'", 1, "pools", "FIRST-LAST"),
        ("[subnet.'10.88.0.0/24']\n\npools = '10.88.0.0-10.88.0.9'", 3, "pools", "10.88.0.1"),
        ("[group.g]\nkernel-args = 'a ${b}'", 2, "group.g.kernel-args", "iPXE"),
        ("all.kernel-args = 'bootfabric.peers=1'", 1, "all.kernel-args", "take it away"),
        ("[all]\nloaders = {bios = 'tftp:x'}", 2, "all.loaders.bios", "bios-pxe"),
        ("[all]\nloaders = {bios-pxe = 'x'}", 2, "all.loaders.bios-pxe", "tftp:NAME"),
        ("[all.options]\nmtu = 1\n26 = 2", 2, "all.options", "twice"),
        ("[all]\nlease = 1", 2, "all.lease", "30 to"),
        ("[node.'n 1']\nmac = '52:54:00:00:00:01'", 1, "node.n 1", "letters"),
        ("[node.n1]\naddress = '10.77.0.9'", 1, "node.n1", "mac, client-id or uuid"),
        ("[node.n1]\nmac = '52:54'\nuuid = 'x'", 3, "node.n1.uuid", "dmidecode"),
        (&format!("{node}address = '10.1.0.1'"), 3, "node.n1.address", "[subnet."),
        (&format!("{node}group = 'x'"), 3, "node.n1.group", "[group.x]"),
        (&format!("{node}[node.n2]\nmac = '52:54:00:00:00:01'"), 4, "node.n2.mac", "twice"),
        (
            &format!(
                "{node}address = '10.77.0.9'\n[node.n2]\nmac = '02:00:00:00:00:02'\naddress = '10.77.0.9'"
            ),
            6,
            "node.n2.address",
            "another node",
        ),
        (
            "[node.n1]\nmac = ['02:00:00:00:00:01', '02:00:00:00:00:02']\naddress = '10.77.0.9'",
            3,
            "node.n1.address",
            "one for each",
        ),
    ] {
        let found = problems(text);
        let expected = format!("line {line}: ");
        assert!(
            found.iter().any(|problem| problem.starts_with(&expected)
                && problem.contains(field)
                && problem.contains(word)),
            "{text}\n{found:?}"
        );
    }
    assert_eq!(problems("[all]\nlease = 1\nboot-lease = 1").len(), 2, "all are found at once");
}

#[test]
fn machines_are_known_by_their_uuid_in_both_byte_orders() {
    let machines = read("[node.n]\nuuid = '00112233-4455-6677-8899-aabbccddeeff'");
    let id: MachineId = "00112233-4455-6677-8899-aabbccddeeff".parse().unwrap();
    assert_eq!(machines.name_of(None, Some(id)), Some("n"));
    assert_eq!(machines.name_of(None, Some(id.swapped())), Some("n"));
    assert_eq!(machines.name_of(Some(ClientKey::ethernet([2; 6])), None), None);
}
