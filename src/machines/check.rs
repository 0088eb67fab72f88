//! From what is written to what it means; everything that is wrong is found in one go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::ops::Range;
use std::time::Duration;

use pxe::dhcp::config::{ClientMatch, LeaseTimes, Reservation, Settings, Told as DhcpTold};
use pxe::dhcp::packet::code;
use pxe::dhcp::{ClientKey, Subnet};
use toml::Spanned;

use super::file::{File, Node, OneOrMany, Options, Subnet as WrittenSubnet, Told};
use super::words::{MAX_KERNEL_ARGS, client_id, is_host_name, kernel_args, mac, network, range, uuid};
use super::{Machines, Problem, Problems, options};

/// Lease times (s) as the fabric's settings have them.
const LEASES: std::ops::RangeInclusive<u32> = 30..=7 * 24 * 3600;
/// Checks one text.
pub(super) struct Checker<'a> {
    text: &'a str,
    problems: Vec<Problem>,
}

/// A group, or all machines, once checked.
#[derive(Debug, Clone, Default)]
struct Layer {
    dhcp: DhcpTold,
    boot_lease: Option<u32>,
    lease: Option<u32>,
    kernel_args: String,
}

impl Layer {
    /// Puts `above` on top: what it says replaces what this says, kernel arguments are added.
    fn cover(&mut self, above: &Self) {
        self.dhcp.loaders.extend(&above.dhcp.loaders);
        self.dhcp.options.extend(above.dhcp.options.clone());
        self.boot_lease = above.boot_lease.or(self.boot_lease);
        self.lease = above.lease.or(self.lease);
        let args = [self.kernel_args.as_str(), above.kernel_args.as_str()];
        self.kernel_args = args.iter().filter(|args| !args.is_empty()).copied().collect::<Vec<_>>().join(" ");
    }

    fn times(&self, usual: LeaseTimes) -> LeaseTimes {
        let seconds = |own: Option<u32>, usual| own.map_or(usual, |own| Duration::from_secs(own.into()));
        LeaseTimes {
            boot: seconds(self.boot_lease, usual.boot),
            plain: seconds(self.lease, usual.plain),
            ..usual
        }
    }
}

impl<'a> Checker<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, problems: Vec::new() }
    }

    /// What the text means on top of `base`, which is what holds without it.
    pub(super) fn check(mut self, base: Machines) -> Result<Machines, Problems> {
        let file: File = match toml::from_str(self.text) {
            Ok(file) => file,
            Err(error) => {
                let why = error.message().replace('\n', ", ");
                self.problem(error.span().unwrap_or_default(), String::new(), why);
                return Err(Problems(self.problems));
            }
        };
        let machines = self.machines(file, base);
        if self.problems.is_empty()
            && let Err(error) =
                Settings::new(machines.dhcp(machines.link().network.hosts().0, ClientKey::ethernet([0; 6])))
        {
            self.problem(0..0, "the whole file".into(), error.to_string());
        }
        if self.problems.is_empty() { Ok(machines) } else { Err(Problems(self.problems)) }
    }

    fn problem(&mut self, at: Range<usize>, field: String, why: String) {
        let before = self.text.as_bytes().get(..at.start).unwrap_or_default();
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        self.problems.push(Problem { line, field, why });
    }

    /// The value, or `None` and a problem.
    fn take<T>(&mut self, at: Range<usize>, field: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|why| self.problem(at, field.to_owned(), why)).ok()
    }

    fn machines(&mut self, file: File, mut base: Machines) -> Machines {
        base.strangers = file.strangers.is_none_or(|written| written.0);
        let all = self.layer("all", file.all);
        base.times = all.times(base.times);
        base.loaders.extend(&all.dhcp.loaders);
        self.subnets(file.subnet, &mut base);
        for subnet in std::iter::once(&mut base.link).chain(&mut base.relayed) {
            for (code, value) in &all.dhcp.options {
                if !says(subnet, *code) {
                    subnet.options.entry(*code).or_insert_with(|| value.clone());
                }
            }
        }
        base.kernel_args.clone_from(&all.kernel_args);
        let groups = file.group.into_iter().map(|(name, told)| {
            let layer = self.layer(&format!("group.{}", name.get_ref()), told);
            (name.into_inner(), layer)
        });
        let groups: BTreeMap<String, Layer> = groups.collect();
        let mut nodes = Nodes {
            checker: self,
            groups: &groups,
            all: &all,
            seen: BTreeSet::new(),
            addresses: BTreeSet::new(),
        };
        for (name, node) in file.node {
            nodes.add(&name, node, &mut base);
        }
        base
    }

    /// What some machines are told.
    fn layer(&mut self, place: &str, told: Told) -> Layer {
        let mut layer = Layer {
            dhcp: DhcpTold { options: self.options(place, told.options), ..DhcpTold::default() },
            ..Layer::default()
        };
        for (class, loader) in told.loaders {
            let field = format!("{place}.loaders.{}", class.get_ref());
            let read = class.get_ref().parse().map_err(|error: pxe::dhcp::class::BadClass| error.to_string());
            let class = self.take(class.span(), &field, read);
            let read =
                loader.get_ref().parse().map_err(|error: pxe::dhcp::loader::BadLoader| error.to_string());
            let loader = self.take(loader.span(), &field, read);
            if let (Some(class), Some(loader)) = (class, loader) {
                layer.dhcp.loaders.set(class, loader);
            }
        }
        let mut lease = |written: Option<Spanned<u32>>, name: &str| {
            let written = written?;
            let (least, most) = LEASES.into_inner();
            let right = Some(*written.get_ref()).filter(|lease| (least..=most).contains(lease));
            self.take(
                written.span(),
                &format!("{place}.{name}"),
                right.ok_or(format!("{least} to {most} seconds are possible")),
            )
        };
        layer.boot_lease = lease(told.boot_lease, "boot-lease");
        layer.lease = lease(told.lease, "lease");
        if let Some(args) = told.kernel_args {
            let read = kernel_args(args.get_ref());
            layer.kernel_args =
                self.take(args.span(), &format!("{place}.kernel-args"), read).unwrap_or_default();
        }
        layer
    }

    fn options(&mut self, place: &str, written: Options) -> BTreeMap<u8, Vec<u8>> {
        let mut all = BTreeMap::new();
        for (name, value) in written {
            let field = format!("{place}.options.{}", name.get_ref());
            let Some(code) = self.take(name.span(), &field, options::code(name.get_ref())) else { continue };
            let Some(bytes) = self.take(value.span(), &field, options::value(code, value.get_ref())) else {
                continue;
            };
            if all.insert(code, bytes).is_some() {
                self.problem(name.span(), field, format!("option {code} is set twice: take one away"));
            }
        }
        all
    }

    fn list<T>(
        &mut self,
        field: &str,
        written: Option<Spanned<OneOrMany>>,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let written = written?;
        let all = written.get_ref().0.iter().map(|text| read(text)).collect();
        self.take(written.span(), field, all)
    }

    fn subnets(&mut self, written: BTreeMap<Spanned<String>, WrittenSubnet>, machines: &mut Machines) {
        for (name, subnet) in written {
            let place = format!("subnet.\"{}\"", name.get_ref());
            let Some(network) = self.take(name.span(), &place, network(name.get_ref())) else { continue };
            let overlaps = |known: &Subnet| {
                known.network != network
                    && (known.network.contains(network.address())
                        || network.contains(known.network.address()))
            };
            if let Some(other) =
                std::iter::once(&machines.link).chain(&machines.relayed).find(|known| overlaps(known))
            {
                let (address, prefix) = (other.network.address(), other.network.prefix());
                let why = format!("it overlaps with {address}/{prefix}: each address belongs to one subnet");
                self.problem(name.span(), place, why);
                continue;
            }
            if machines.link.network == network {
                machines.link = self.subnet(&place, name.span(), subnet, machines.link.clone());
            } else {
                let bare = Subnet { ranges: Vec::new(), ..Subnet::whole(network) };
                let read = self.subnet(&place, name.span(), subnet, bare);
                machines.relayed.push(read);
            }
        }
    }

    /// A subnet as written, on top of what is known of it.
    fn subnet(
        &mut self,
        place: &str,
        at: Range<usize>,
        written: WrittenSubnet,
        mut subnet: Subnet,
    ) -> Subnet {
        let network = subnet.network;
        let field = |name: &str| format!("{place}.{name}");
        let span = written.pools.as_ref().map_or(at, Spanned::span);
        if let Some(ranges) = self.list(&field("pools"), written.pools, |text| range(text, network)) {
            subnet.ranges = ranges;
        }
        if subnet.ranges.is_empty() {
            self.problem(
                span,
                field("pools"),
                "it gives no addresses: write pools = [\"FIRST-LAST\"]".into(),
            );
        }
        let address = options::address;
        subnet.routers = self.list(&field("routers"), written.routers, address).unwrap_or_default();
        subnet.name_servers = self.list(&field("dns"), written.dns, address).unwrap_or_default();
        subnet.relays = self.list(&field("relays"), written.relays, address).unwrap_or_default();
        subnet.domain = written.domain.map(Spanned::into_inner);
        subnet.options = self.options(place, written.options);
        for code in [code::ROUTER, code::NAME_SERVER, code::DOMAIN_NAME] {
            if says(&subnet, code) {
                subnet.options.remove(&code);
            }
        }
        subnet
    }
}

/// Whether a subnet says this option by a field of its own.
fn says(subnet: &Subnet, option: u8) -> bool {
    match option {
        code::ROUTER => !subnet.routers.is_empty(),
        code::NAME_SERVER => !subnet.name_servers.is_empty(),
        code::DOMAIN_NAME => subnet.domain.is_some(),
        _ => false,
    }
}

/// Reads the nodes of a file.
struct Nodes<'a, 'b> {
    checker: &'a mut Checker<'b>,
    groups: &'a BTreeMap<String, Layer>,
    all: &'a Layer,
    /// What nodes were known by so far.
    seen: BTreeSet<ClientMatch>,
    addresses: BTreeSet<Ipv4Addr>,
}

impl Nodes<'_, '_> {
    fn add(&mut self, name: &Spanned<String>, mut node: Node, machines: &mut Machines) {
        let (at, name) = (name.span(), name.get_ref());
        let place = format!("node.{name}");
        if !is_host_name(name) {
            let why = "a node's name is its host name: 1 to 63 letters, digits and dashes";
            return self.checker.problem(at, place, why.into());
        }
        // What its groups say, without what all are told: that is in the subnets and the class table already.
        let mut own = Layer::default();
        let groups_at = node.group.as_ref().map_or(at.clone(), Spanned::span);
        for group in node.group.take().map(Spanned::into_inner).unwrap_or_default().0 {
            match self.groups.get(&group) {
                Some(layer) => own.cover(layer),
                None => {
                    let why = format!("there is no group `{group}`: write [group.{group}], or take it away");
                    self.checker.problem(groups_at.clone(), format!("{place}.group"), why);
                }
            }
        }
        let args_at = node.kernel_args.as_ref().map_or(at.clone(), Spanned::span);
        let told = node.take_told();
        own.cover(&self.checker.layer(&place, told));
        let mut whole = self.all.clone();
        whole.cover(&own);
        if whole.kernel_args.len() > MAX_KERNEL_ARGS {
            let why = format!(
                "with those of its groups and of all it has {} bytes of kernel arguments, at most {MAX_KERNEL_ARGS} are possible",
                whole.kernel_args.len()
            );
            self.checker.problem(args_at, format!("{place}.kernel-args"), why);
        }
        if own.boot_lease.is_some() || own.lease.is_some() {
            own.dhcp.times = Some(own.times(machines.times));
        }
        let clients = self.clients(&place, &at, &mut node);
        let addresses = self.node_addresses(&place, &at, node.address, clients.len(), machines);
        machines.node_args.insert(name.clone(), whole.kernel_args);
        for (n, client) in clients.into_iter().enumerate() {
            machines.names.insert(client.clone(), name.clone());
            machines.reservations.push(Reservation {
                client,
                address: addresses.get(n).copied(),
                name: Some(name.clone()),
                told: own.dhcp.clone(),
            });
        }
    }

    /// What a node is known by.
    fn clients(&mut self, place: &str, at: &Range<usize>, node: &mut Node) -> Vec<ClientMatch> {
        let mut all = Vec::new();
        let written = [
            (node.mac.take(), "mac", mac as fn(&str) -> Result<ClientMatch, String>),
            (node.client_id.take(), "client-id", client_id),
            (node.uuid.take(), "uuid", uuid),
        ];
        let mut named = false;
        for (written, name, read) in written {
            let field = format!("{place}.{name}");
            named |= written.is_some();
            let at = written.as_ref().map_or(at.clone(), Spanned::span);
            for client in self.checker.list(&field, written, read).unwrap_or_default() {
                if !self.seen.insert(client.clone()) {
                    self.checker.problem(
                        at.clone(),
                        field.clone(),
                        format!("{client} is named twice: take one away"),
                    );
                }
                all.push(client);
            }
        }
        if !named {
            let why = "nothing says which machine this is: write mac, client-id or uuid";
            self.checker.problem(at.clone(), place.to_owned(), why.into());
        }
        all
    }

    fn node_addresses(
        &mut self,
        place: &str,
        at: &Range<usize>,
        written: Option<Spanned<OneOrMany>>,
        clients: usize,
        machines: &Machines,
    ) -> Vec<Ipv4Addr> {
        let field = format!("{place}.address");
        let at = written.as_ref().map_or(at.clone(), Spanned::span);
        let addresses = self.checker.list(&field, written, options::address).unwrap_or_default();
        if addresses.len() > 1 && addresses.len() != clients || addresses.len() == 1 && clients > 1 {
            let why = format!(
                "{} for {clients} interfaces: write a list with one for each, in the same order",
                addresses.len()
            );
            self.checker.problem(at.clone(), field.clone(), why);
        }
        for &address in &addresses {
            let mut subnets = std::iter::once(&machines.link).chain(&machines.relayed);
            let subnet = subnets.find(|subnet| subnet.network.contains(address));
            let why = match subnet {
                None => "lies in no subnet: change it, or write a [subnet.\"A.B.C.D/N\"] that holds it",
                Some(subnet) if subnet.is_infrastructure(address) => {
                    "belongs to a router, a DNS server or the network itself: choose another"
                }
                _ if !self.addresses.insert(address) => "is given to another node too: choose another",
                Some(_) => continue,
            };
            self.checker.problem(at.clone(), field.clone(), format!("{address} {why}"));
        }
        addresses
    }
}
