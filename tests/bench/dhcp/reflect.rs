//! The least that can be called a DHCP server: it turns each packet round and remembers nothing.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

/// Answers for ever.
pub(crate) fn serve(server: Ipv4Addr) -> ! {
    let socket = UdpSocket::bind("0.0.0.0:67").unwrap();
    let mut packet = [0; 1500];
    loop {
        let (length, _) = socket.recv_from(&mut packet).unwrap();
        // DISCOVER (1) becomes OFFER (2), REQUEST (3) ACK (5); the address is made from the client's.
        if length < 244 || packet[240..242] != [53, 1] {
            continue;
        }
        packet[0] = 2;
        packet[242] = if packet[242] == 1 { 2 } else { 5 };
        packet[16] = 10;
        packet.copy_within(31..34, 17);
        let relay = Ipv4Addr::new(packet[24], packet[25], packet[26], packet[27]);
        packet[243..247].copy_from_slice(&[54, 4, server.octets()[0], server.octets()[1]]);
        packet[247..249].copy_from_slice(&server.octets()[2..]);
        packet[249..256].copy_from_slice(&[51, 4, 0, 0, 14, 16, 255]);
        socket.send_to(&packet[..256], SocketAddrV4::new(relay, 67)).unwrap();
    }
}
