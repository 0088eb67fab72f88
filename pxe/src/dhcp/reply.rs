//! Writes replies: one place that knows which fields and options each class of client needs.
//!
//! Owns field and option order, sizes and padding. Never decides whether to reply or with which address.

use std::net::Ipv4Addr;
use std::ops::Range;
use std::time::Duration;

use super::class::{Client, ClientClass};
use super::config::{ProxyStyle, Settings, Subnet};
use super::loader::Loader;
use super::packet::{BOOT_REPLY, HEADER, MAGIC, MessageType, Packet, code};

/// BOOTP's shortest packet, which old clients insist on (RFC 951 §3, RFC 1542 §2.1).
const MIN_REPLY: usize = 300;
/// The longest reply to a client that names no limit: 576 bytes of IP datagram less IP and UDP headers (RFC 2131 §2).
const DEFAULT_LIMIT: usize = 576 - IP_UDP_HEADERS;
/// The longest reply at all: one Ethernet frame, whatever larger size the client names (EDK2 says 65280).
const MAX_LIMIT: usize = 1500 - IP_UDP_HEADERS;
const IP_UDP_HEADERS: usize = 28;
/// What ends the options.
const END: u8 = 255;
/// Bytes of an option that fit its length byte.
const MAX_PART: usize = 255;
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
    /// An OFFER or ACK with an address; `shared` if somebody else answers on this link too.
    Lease { kind: MessageType, address: Ipv4Addr, lifetime: Duration, subnet: &'a Subnet, shared: bool },
    /// An ACK to an INFORM: options without address or lease time (RFC 2131 §4.3.5).
    Inform { subnet: &'a Subnet },
    /// A NAK with a reason.
    Nak { why: &'a str },
    /// An OFFER, or on port 4011 an ACK, with a boot file alone.
    Proxy { kind: MessageType },
}

/// Writes a reply to `packet`, padded to [`MIN_REPLY`] and within the client's limit.
pub(super) fn write(settings: &Settings, packet: &Packet, client: &Client, answer: Answer<'_>) -> Vec<u8> {
    let boot_file = boot_file(settings, client).filter(|_| !matches!(answer, Answer::Nak { .. }));
    let mut options = options(settings, packet, client, answer, boot_file.as_deref());
    // RFC 3046 §2.2: a relay's own option is returned as it came, and comes last.
    let mut last = Vec::new();
    if let Some(relay) = packet.option(code::RELAY_AGENT) {
        write_option(&mut last, code::RELAY_AGENT, relay);
    }
    last.push(END);
    let limit = size_limit(packet);
    while HEADER + options.bytes.len() + last.len() > limit && options.drop_least_needed() {}

    let mut bytes = Vec::with_capacity(MIN_REPLY.max(HEADER + options.bytes.len() + last.len()));
    header(&mut bytes, settings, packet, client, answer, boot_file.as_deref());
    bytes.extend_from_slice(&options.bytes);
    bytes.extend_from_slice(&last);
    bytes.resize(bytes.len().max(MIN_REPLY), 0);
    bytes
}

/// What a client is told to load.
pub(super) fn boot_file(settings: &Settings, client: &Client) -> Option<String> {
    let config = &settings.config;
    loader(settings, client)?.boot_file(config.server, config.http_port)
}

/// What the client loads: its own loader, or that of its class.
fn loader<'a>(settings: &'a Settings, client: &Client) -> Option<&'a Loader> {
    let own = settings.reservation(&client.who()).and_then(|known| known.told.loaders.get(client.class));
    own.or_else(|| settings.config.loaders.get(client.class))
}

fn size_limit(packet: &Packet) -> usize {
    let named = packet.u16_option(code::MAX_SIZE).map_or(0, usize::from);
    named.saturating_sub(IP_UDP_HEADERS).clamp(DEFAULT_LIMIT, MAX_LIMIT)
}

/// The fixed fields with the cookie (RFC 2131 §2).
fn header(
    bytes: &mut Vec<u8>,
    settings: &Settings,
    packet: &Packet,
    client: &Client,
    answer: Answer<'_>,
    boot_file: Option<&str>,
) {
    let none = Ipv4Addr::UNSPECIFIED;
    let (ciaddr, yiaddr) = match answer {
        Answer::Lease { kind: MessageType::Ack, address, .. } => (packet.ciaddr, address),
        Answer::Lease { address, .. } => (none, address),
        Answer::Inform { .. } => (packet.ciaddr, none),
        Answer::Nak { .. } | Answer::Proxy { .. } => (none, none),
    };
    // RFC 2131 §4.3.2: through a relay, a NAK must reach a client whose address is wrong.
    let to_all = matches!(answer, Answer::Nak { .. }) && !packet.giaddr.is_unspecified();
    let flags = packet.flags | if to_all { 0x8000 } else { 0 };
    let serves = boot_file.is_some() || loads_by_itself(client, answer);
    let siaddr = if serves { settings.config.server } else { none };
    let length = u8::try_from(packet.chaddr().len()).unwrap_or_default();

    bytes.extend_from_slice(&[BOOT_REPLY, packet.hardware_type, length, 0]);
    bytes.extend_from_slice(&packet.xid.to_be_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(&flags.to_be_bytes());
    for address in [ciaddr, yiaddr, siaddr, packet.giaddr] {
        bytes.extend_from_slice(&address.octets());
    }
    put_text(bytes, packet.chaddr(), 16);
    put_text(bytes, if serves { settings.server_name.as_bytes() } else { &[] }, 64);
    let file = boot_file.filter(|file| file.len() <= MAX_FILE_FIELD).unwrap_or_default();
    put_text(bytes, file.as_bytes(), 128);
    bytes.extend_from_slice(&MAGIC);
}

/// Appends a field of `width` bytes, filled up with zeros.
fn put_text(bytes: &mut Vec<u8>, text: &[u8], width: usize) {
    let end = bytes.len() + width;
    bytes.extend_from_slice(text.get(..width).unwrap_or(text));
    bytes.resize(end, 0);
}

/// A Raspberry Pi needs no file name, only a TFTP server.
fn loads_by_itself(client: &Client, answer: Answer<'_>) -> bool {
    client.class == ClientClass::RaspberryPi && !matches!(answer, Answer::Nak { .. })
}

/// Encoded options in the order in which they are sent.
#[derive(Default)]
struct Options {
    bytes: Vec<u8>,
    /// Where each option that the client can do without is.
    optional: Vec<Range<usize>>,
}

impl Options {
    fn needed(&mut self, code: u8, value: &[u8]) {
        write_option(&mut self.bytes, code, value);
    }

    fn optional(&mut self, code: u8, value: &[u8]) {
        let start = self.bytes.len();
        write_option(&mut self.bytes, code, value);
        self.optional.push(start..self.bytes.len());
    }

    fn addresses(&mut self, code: u8, addresses: &[Ipv4Addr]) {
        let value: Vec<u8> = addresses.iter().flat_map(Ipv4Addr::octets).collect();
        self.needed(code, &value);
    }

    /// Drops the last option that is not needed; whether there was one.
    fn drop_least_needed(&mut self) -> bool {
        self.optional.pop().map(|place| self.bytes.drain(place)).is_some()
    }
}

/// Appends an option; what is longer than 255 bytes goes in parts (RFC 3396).
fn write_option(bytes: &mut Vec<u8>, code: u8, value: &[u8]) {
    let (mut part, mut rest) = value.split_at(value.len().min(MAX_PART));
    loop {
        bytes.extend_from_slice(&[code, u8::try_from(part.len()).unwrap_or(u8::MAX)]);
        bytes.extend_from_slice(part);
        if rest.is_empty() {
            return;
        }
        (part, rest) = rest.split_at(rest.len().min(MAX_PART));
    }
}

fn options(
    settings: &Settings,
    packet: &Packet,
    client: &Client,
    answer: Answer<'_>,
    boot_file: Option<&str>,
) -> Options {
    let mut options = Options { bytes: Vec::with_capacity(256), optional: Vec::new() };
    options.needed(code::MESSAGE_TYPE, &[message_type(answer).into()]);
    options.needed(code::SERVER_ID, &settings.config.server.octets());
    match answer {
        Answer::Lease { lifetime, subnet, shared, .. } => {
            push_times(&mut options, lifetime);
            push_subnet(&mut options, settings, client, subnet);
            push_boot(&mut options, settings, client, boot_file);
            push_full(&mut options, packet, client, shared);
        }
        Answer::Inform { subnet } => {
            push_subnet(&mut options, settings, client, subnet);
            push_boot(&mut options, settings, client, boot_file);
        }
        Answer::Nak { why } => options.optional(code::MESSAGE, why.as_bytes()),
        Answer::Proxy { .. } => {
            push_boot(&mut options, settings, client, boot_file);
            push_proxy(&mut options, settings, client);
        }
    }
    // RFC 6842: the client id is returned; RFC 4578 §2.3: so is the machine id.
    if client.class.boots()
        && let Some(uuid) = packet.option(code::UUID).filter(|uuid| !uuid.is_empty())
    {
        options.needed(code::UUID, uuid);
    }
    if let Some(id) = packet.option(code::CLIENT_ID).filter(|id| !id.is_empty()) {
        options.needed(code::CLIENT_ID, id);
    }
    options
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
    options.needed(code::LEASE_TIME, &seconds.to_be_bytes());
    options.optional(code::RENEWAL, &(seconds / 2).to_be_bytes());
    options.optional(code::REBINDING, &(seconds - seconds / 8).to_be_bytes());
}

/// What the subnet says, and in its place what is said to this client alone.
fn push_subnet(options: &mut Options, settings: &Settings, client: &Client, subnet: &Subnet) {
    let known = settings.reservation(&client.who());
    let own = known.map(|known| &known.told.options);
    let is_own = |code: u8| own.is_some_and(|own| own.contains_key(&code));
    options.needed(code::SUBNET_MASK, &subnet.network.mask().octets());
    if !subnet.routers.is_empty() && !is_own(code::ROUTER) {
        options.addresses(code::ROUTER, &subnet.routers);
    }
    if !subnet.name_servers.is_empty() && !is_own(code::NAME_SERVER) {
        options.addresses(code::NAME_SERVER, &subnet.name_servers);
    }
    if let Some(domain) = subnet.domain.as_ref().filter(|_| !is_own(code::DOMAIN_NAME)) {
        options.optional(code::DOMAIN_NAME, domain.as_bytes());
    }
    if let Some(name) = known.and_then(|known| known.name.as_ref()).filter(|_| !is_own(code::HOST_NAME)) {
        options.optional(code::HOST_NAME, name.as_bytes());
    }
    // The menu of a Raspberry Pi is no operator's affair.
    let is_taken = |code: u8| code == code::VENDOR && client.class == ClientClass::RaspberryPi;
    for (&code, value) in subnet.options.iter().filter(|(code, _)| !is_own(**code) && !is_taken(**code)) {
        options.optional(code, value);
    }
    for (&code, value) in own.into_iter().flatten().filter(|(code, _)| !is_taken(**code)) {
        options.optional(code, value);
    }
}

/// TFTP server and boot file, equal to the header's fields: EDK2 believes option 67, others the header.
fn push_boot(options: &mut Options, settings: &Settings, client: &Client, boot_file: Option<&str>) {
    let server = settings.server_name.as_bytes();
    let Some(file) = boot_file else {
        if client.class == ClientClass::RaspberryPi {
            options.needed(code::TFTP_SERVER, server);
        }
        return;
    };
    if !matches!(client.class, ClientClass::UefiHttp { .. }) {
        options.optional(code::TFTP_SERVER, server);
    }
    let mut file = file.as_bytes().to_vec();
    if reads_file_as_c_string(settings, client) {
        file.push(0);
    }
    options.needed(code::BOOT_FILE, &file);
}

/// Some PXE ROMs run over the end of option 67 unless it ends with a NUL; dnsmasq has sent one to all of them for years.
/// A Raspberry Pi and HTTP clients get none.
fn reads_file_as_c_string(settings: &Settings, client: &Client) -> bool {
    let firmware = matches!(client.class, ClientClass::BiosPxe | ClientClass::UefiPxe { .. });
    firmware && matches!(loader(settings, client), Some(Loader::Tftp(_)))
}

/// What only a server that also gives the address says. No vendor class for PXE here: with it and without option 43,
/// EDK2 would go and ask port 4011.
fn push_full(options: &mut Options, packet: &Packet, client: &Client, shared: bool) {
    match client.class {
        ClientClass::UefiHttp { .. } => options.needed(code::VENDOR_CLASS, b"HTTPClient"),
        ClientClass::RaspberryPi => {
            options.needed(code::VENDOR_CLASS, b"PXEClient");
            options.needed(code::VENDOR, RASPBERRY_PI_MENU);
        }
        class if class.is_ipxe() => {
            options.needed(code::IPXE, IPXE_NO_PROXY);
            // Among the offers of several servers iPXE prefers one with its own vendor class; other ROMs dislike it.
            if let Some(vendor_class) = packet.option(code::VENDOR_CLASS).filter(|_| shared) {
                options.needed(code::VENDOR_CLASS, vendor_class);
            }
        }
        _ => {}
    }
}

fn push_proxy(options: &mut Options, settings: &Settings, client: &Client) {
    match client.class {
        ClientClass::UefiHttp { .. } => options.needed(code::VENDOR_CLASS, b"HTTPClient"),
        ClientClass::RaspberryPi => {
            options.needed(code::VENDOR_CLASS, b"PXEClient");
            options.needed(code::VENDOR, RASPBERRY_PI_MENU);
        }
        // iPXE takes file and server from the offer in either style.
        class => {
            options.needed(code::VENDOR_CLASS, b"PXEClient");
            if settings.config.proxy_style == ProxyStyle::Bypass || class.is_ipxe() {
                options.needed(code::VENDOR, BYPASS_DISCOVERY);
            }
        }
    }
}
