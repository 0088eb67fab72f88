//! Writes replies: one place that knows which fields and options each class of client needs.
//!
//! Owns field and option order, sizes and padding. Never decides whether to reply or with which address.

use std::net::Ipv4Addr;
use std::time::Duration;

use dhcproto::v4::{DhcpOption, Flags, Message, MessageType, Opcode, OptionCode, UnknownOption};
use dhcproto::{Encodable, Encoder};

use super::class::{Client, ClientClass};
use super::config::{ProxyStyle, Settings, Subnet};
use super::loader::Loader;
use super::packet::{Packet, code};

/// BOOTP's shortest packet, which old clients insist on (RFC 951 §3, RFC 1542 §2.1).
const MIN_REPLY: usize = 300;
/// The longest reply to a client that names no limit: 576 bytes of IP datagram less IP and UDP headers (RFC 2131 §2).
const DEFAULT_LIMIT: usize = 576 - IP_UDP_HEADERS;
/// The longest reply at all: one Ethernet frame, whatever larger size the client names (EDK2 says 65280).
const MAX_LIMIT: usize = 1500 - IP_UDP_HEADERS;
const IP_UDP_HEADERS: usize = 28;
/// The `file` field holds 128 bytes with its NUL (RFC 2131 §2).
const MAX_FILE_FIELD: usize = 127;

/// "Take the boot file from this offer": PXE discovery control with bit 3 set (PXE 2.1 §2.2.3, option 43 sub-option 6).
const BYPASS_DISCOVERY: &[u8] = &[6, 1, 8, 255];
/// The only menu that a Raspberry Pi's ROM accepts, byte for byte.
const RASPBERRY_PI_MENU: &[u8] = b"\x06\x01\x03\x0a\x04\x00PXE\x09\x14\x00\x00\x11Raspberry Pi Boot\xff";
/// iPXE sub-option 176, "no ProxyDHCP will come": saves it a wait of 3 s.
const IPXE_NO_PROXY: &[u8] = &[176, 1, 1];

/// What the reply says.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer<'a> {
    /// An OFFER or ACK with an address.
    Lease { kind: MessageType, address: Ipv4Addr, lifetime: Duration, subnet: &'a Subnet },
    /// An ACK to an INFORM: options without address or lease time (RFC 2131 §4.3.5).
    Inform { subnet: &'a Subnet },
    /// A NAK with a reason.
    Nak { why: &'a str },
    /// An OFFER, or on port 4011 an ACK, with a boot file alone.
    Proxy { kind: MessageType },
}

/// Writes a reply to `packet`, padded to [`MIN_REPLY`] and within the client's limit. `None` only if a field cannot
/// be encoded at all, which checked settings rule out.
pub(super) fn write(
    settings: &Settings,
    packet: &Packet,
    client: &Client,
    answer: Answer<'_>,
) -> Option<Vec<u8>> {
    let boot_file = boot_file(settings, client).filter(|_| !matches!(answer, Answer::Nak { .. }));
    let mut bytes = header(settings, packet, client, answer, boot_file.as_deref()).to_vec().ok()?;
    let (mut options, last) = options(settings, packet, client, answer, boot_file.as_deref());

    let limit = size_limit(packet);
    let rest = bytes.len() + last.len() + 1;
    while rest + options.len() > limit && options.drop_least_needed() {}

    options.items.iter().for_each(|item| bytes.extend_from_slice(&item.bytes));
    bytes.extend_from_slice(&last);
    bytes.push(OptionCode::End.into());
    bytes.resize(bytes.len().max(MIN_REPLY), 0);
    Some(bytes)
}

/// What a client is told to load.
pub(super) fn boot_file(settings: &Settings, client: &Client) -> Option<String> {
    let config = &settings.config;
    Some(config.loaders.get(client.class)?.boot_file(config.server, config.http_port))
}

fn size_limit(packet: &Packet) -> usize {
    let named = packet.u16_option(code::MAX_SIZE).map_or(0, usize::from);
    named.saturating_sub(IP_UDP_HEADERS).clamp(DEFAULT_LIMIT, MAX_LIMIT)
}

fn header(
    settings: &Settings,
    packet: &Packet,
    client: &Client,
    answer: Answer<'_>,
    boot_file: Option<&str>,
) -> Message {
    let mut message = Message::default();
    let mut flags = packet.flags;
    message
        .set_opcode(Opcode::BootReply)
        .set_htype(packet.hardware_type.into())
        .set_chaddr(&packet.chaddr)
        .set_xid(packet.xid)
        .set_giaddr(packet.giaddr);
    match answer {
        Answer::Lease { kind, address, .. } => {
            message.set_yiaddr(address);
            if kind == MessageType::Ack {
                message.set_ciaddr(packet.ciaddr);
            }
        }
        Answer::Inform { .. } => {
            message.set_ciaddr(packet.ciaddr);
        }
        // RFC 2131 §4.3.2: through a relay, a NAK must reach a client whose address is wrong.
        Answer::Nak { .. } if !packet.giaddr.is_unspecified() => flags |= 0x8000,
        Answer::Nak { .. } | Answer::Proxy { .. } => {}
    }
    message.set_flags(Flags::new(flags));
    if let Some(file) = boot_file.filter(|file| file.len() <= MAX_FILE_FIELD) {
        message.set_fname(file.as_bytes());
    }
    if boot_file.is_some() || loads_by_itself(client, answer) {
        message.set_siaddr(settings.config.server);
        message.set_sname(settings.config.server.to_string().as_bytes());
    }
    message
}

/// A Raspberry Pi needs no file name, only a TFTP server.
fn loads_by_itself(client: &Client, answer: Answer<'_>) -> bool {
    client.class == ClientClass::RaspberryPi && !matches!(answer, Answer::Nak { .. })
}

/// Encoded options in the order in which they are sent.
#[derive(Default)]
struct Options {
    items: Vec<Item>,
}

struct Item {
    bytes: Vec<u8>,
    /// Whether the client cannot do without.
    needed: bool,
}

impl Options {
    fn needed(&mut self, option: &DhcpOption) {
        self.push(option, true);
    }

    fn optional(&mut self, option: &DhcpOption) {
        self.push(option, false);
    }

    fn push(&mut self, option: &DhcpOption, needed: bool) {
        self.items.extend(encode(option).map(|bytes| Item { bytes, needed }));
    }

    fn len(&self) -> usize {
        self.items.iter().map(|item| item.bytes.len()).sum()
    }

    /// Drops the last option that is not needed; whether there was one.
    fn drop_least_needed(&mut self) -> bool {
        let found = self.items.iter().rposition(|item| !item.needed);
        found.map(|index| self.items.remove(index)).is_some()
    }
}

fn encode(option: &DhcpOption) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    option.encode(&mut Encoder::new(&mut bytes)).ok().map(|()| bytes)
}

/// All options, and the bytes of the one that must come last: a relay's own option is returned as it came (RFC 3046 §2.2).
fn options(
    settings: &Settings,
    packet: &Packet,
    client: &Client,
    answer: Answer<'_>,
    boot_file: Option<&str>,
) -> (Options, Vec<u8>) {
    let mut options = Options::default();
    options.needed(&DhcpOption::MessageType(message_type(answer)));
    options.needed(&DhcpOption::ServerIdentifier(settings.config.server));
    match answer {
        Answer::Lease { lifetime, subnet, .. } => {
            push_times(&mut options, lifetime);
            push_subnet(&mut options, settings, client, subnet);
            push_boot(&mut options, settings, client, boot_file);
            push_full(&mut options, client);
        }
        Answer::Inform { subnet } => {
            push_subnet(&mut options, settings, client, subnet);
            push_boot(&mut options, settings, client, boot_file);
        }
        Answer::Nak { why } => options.optional(&DhcpOption::Message(why.to_owned())),
        Answer::Proxy { .. } => {
            push_boot(&mut options, settings, client, boot_file);
            push_proxy(&mut options, settings, client);
        }
    }
    // RFC 6842: the client id is returned; RFC 4578 §2.3: so is the machine id.
    if client.class.boots()
        && let Some(uuid) = packet.option(code::UUID).filter(|uuid| !uuid.is_empty())
    {
        options.needed(&DhcpOption::ClientMachineIdentifier(uuid.to_vec()));
    }
    if let Some(id) = packet.option(code::CLIENT_ID).filter(|id| !id.is_empty()) {
        options.needed(&DhcpOption::ClientIdentifier(id.to_vec()));
    }
    let relay = packet.option(code::RELAY_AGENT).map(|bytes| {
        DhcpOption::Unknown(UnknownOption::new(OptionCode::RelayAgentInformation, bytes.to_vec()))
    });
    (options, relay.as_ref().and_then(encode).unwrap_or_default())
}

fn message_type(answer: Answer<'_>) -> MessageType {
    match answer {
        Answer::Lease { kind, .. } | Answer::Proxy { kind } => kind,
        Answer::Inform { .. } => MessageType::Ack,
        Answer::Nak { .. } => MessageType::Nak,
    }
}

/// Lease time, and the times to renew and rebind at their usual 1/2 and 7/8 (RFC 2131 §4.4.5).
fn push_times(options: &mut Options, lifetime: Duration) {
    let seconds = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
    options.needed(&DhcpOption::AddressLeaseTime(seconds));
    options.optional(&DhcpOption::Renewal(seconds / 2));
    options.optional(&DhcpOption::Rebinding(seconds - seconds / 8));
}

fn push_subnet(options: &mut Options, settings: &Settings, client: &Client, subnet: &Subnet) {
    options.needed(&DhcpOption::SubnetMask(subnet.network.mask()));
    if !subnet.routers.is_empty() {
        options.needed(&DhcpOption::Router(subnet.routers.clone()));
    }
    if !subnet.name_servers.is_empty() {
        options.needed(&DhcpOption::DomainNameServer(subnet.name_servers.clone()));
    }
    if let Some(domain) = &subnet.domain {
        options.optional(&DhcpOption::DomainName(domain.clone()));
    }
    if let Some(name) = settings.reservation(&client.key).and_then(|reservation| reservation.name.clone()) {
        options.optional(&DhcpOption::Hostname(name));
    }
}

/// TFTP server and boot file, equal to the header's fields: EDK2 believes option 67, others the header.
fn push_boot(options: &mut Options, settings: &Settings, client: &Client, boot_file: Option<&str>) {
    let server = || DhcpOption::TFTPServerName(settings.config.server.to_string().into_bytes());
    let Some(file) = boot_file else {
        if client.class == ClientClass::RaspberryPi {
            options.needed(&server());
        }
        return;
    };
    if !matches!(client.class, ClientClass::UefiHttp { .. }) {
        options.optional(&server());
    }
    let mut file = file.as_bytes().to_vec();
    if reads_file_as_c_string(settings, client) {
        file.push(0);
    }
    options.needed(&DhcpOption::BootfileName(file));
}

/// Some PXE ROMs run over the end of option 67 unless it ends with a NUL; dnsmasq has sent one to all of them for years.
/// A Raspberry Pi and HTTP clients get none.
fn reads_file_as_c_string(settings: &Settings, client: &Client) -> bool {
    let firmware = matches!(client.class, ClientClass::BiosPxe | ClientClass::UefiPxe { .. });
    firmware && matches!(settings.config.loaders.get(client.class), Some(Loader::Tftp(_)))
}

/// What only a server that also gives the address says. No vendor class for PXE here: with it and without option 43,
/// EDK2 would go and ask port 4011.
fn push_full(options: &mut Options, client: &Client) {
    match client.class {
        ClientClass::UefiHttp { .. } => options.needed(&vendor_class(b"HTTPClient")),
        ClientClass::RaspberryPi => {
            options.needed(&vendor_class(b"PXEClient"));
            options.needed(&DhcpOption::VendorExtensions(RASPBERRY_PI_MENU.to_vec()));
        }
        class if class.is_ipxe() => {
            let ipxe = UnknownOption::new(OptionCode::from(code::IPXE), IPXE_NO_PROXY.to_vec());
            options.needed(&DhcpOption::Unknown(ipxe));
        }
        _ => {}
    }
}

fn push_proxy(options: &mut Options, settings: &Settings, client: &Client) {
    match client.class {
        ClientClass::UefiHttp { .. } => options.needed(&vendor_class(b"HTTPClient")),
        ClientClass::RaspberryPi => {
            options.needed(&vendor_class(b"PXEClient"));
            options.needed(&DhcpOption::VendorExtensions(RASPBERRY_PI_MENU.to_vec()));
        }
        // iPXE takes file and server from the offer in either style.
        class => {
            options.needed(&vendor_class(b"PXEClient"));
            if settings.config.proxy_style == ProxyStyle::Bypass || class.is_ipxe() {
                options.needed(&DhcpOption::VendorExtensions(BYPASS_DISCOVERY.to_vec()));
            }
        }
    }
}

fn vendor_class(name: &[u8]) -> DhcpOption {
    DhcpOption::ClassIdentifier(name.to_vec())
}
