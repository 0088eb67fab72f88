//! Real firmware beside a site's DHCP server and a node that is a proxy, UEFI HTTP boot of a loader, little memory, and no
//! waiting.
//!
//! A machine comes as far as a first stage that has the release, which is all that firmware and DHCP decide.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use bootfabric::lab::assets::RootKind;
use bootfabric::lab::cluster::{Boot, Cluster, HostNode, MachineNode, STEP_DEADLINE};
use netlab::pcap::DhcpKind;
use netlab::{Cidr, Firmware, Host, HostSpec, Mac, MachineSpec, Uefi, UefiBoot};

/// The site's DHCP server, which knows nothing of booting.
#[derive(Clone, Copy)]
enum Site {
    Dnsmasq,
    Kea,
}

const SITE: &str = "10.77.3.254/22";
/// Of the site, outside of the fabric's pool.
const SITE_POOL: [&str; 2] = ["10.77.3.241", "10.77.3.249"];
/// Of the machine that the settings name.
const MAC: &str = "52:54:00:77:00:01";
/// What the machine alone finds on its kernel line.
const ARGUMENT: &str = "bootfabric.test=interop";
/// The least, in steps of 32, in which iPXE, the kernel and an unpacked first stage fit.
const LEAST_MEMORY_MIB: u32 = 128;
/// The least, in steps of 32, with which the small root is fetched, too, and runs.
const SMALL_MEMORY_MIB: u32 = 288;
const UEFI_MEMORY_MIB: u32 = 384;

fn site_host(cluster: &Cluster) -> anyhow::Result<Host> {
    let spec = HostSpec::new("site").address(SITE.parse::<Cidr>()?);
    Ok(cluster.lab().host_with(&spec, cluster.switch())?)
}

fn start_site(cluster: &Cluster, site: Site) -> anyhow::Result<Host> {
    match site {
        Site::Dnsmasq => start_dnsmasq(cluster, &[]),
        Site::Kea => start_kea(cluster),
    }
}

fn start_dnsmasq(cluster: &Cluster, more: &[&str]) -> anyhow::Result<Host> {
    let host = site_host(cluster)?;
    let [first, last] = SITE_POOL;
    let mut command = host.command("dnsmasq");
    command.args(["--keep-in-foreground", "--log-facility=-", "--conf-file=/dev/null"]);
    command.args(["--port=0", "--no-ping", "--bind-interfaces", "--interface", host.interface()]);
    command.arg(format!("--dhcp-range={first},{last},255.255.252.0,600"));
    command.arg(format!("--dhcp-leasefile={}", cluster.lab().directory().join("dnsmasq.leases").display()));
    host.spawn("dnsmasq", command.args(more))?.wait_for_log("DHCP, IP range", STEP_DEADLINE)?;
    Ok(host)
}

fn start_kea(cluster: &Cluster) -> anyhow::Result<Host> {
    let (host, directory, [first, last]) = (site_host(cluster)?, cluster.lab().directory(), SITE_POOL);
    let config = directory.join("kea.json");
    let text = format!(
        r#"{{"Dhcp4": {{"interfaces-config": {{"interfaces": ["{}"]}}, "lease-database": {{"type": "memfile", "persist": false}},
        "subnet4": [{{"subnet": "10.77.0.0/22", "pools": [{{"pool": "{first}-{last}"}}]}}],
        "loggers": [{{"name": "kea-dhcp4", "severity": "INFO", "output_options": [{{"output": "stderr"}}]}}]}}}}"#,
        host.interface()
    );
    std::fs::write(&config, text)?;
    let mut command = host.command("kea-dhcp4");
    command.env("KEA_PIDFILE_DIR", directory).env("KEA_LOCKFILE_DIR", "none").arg("-c").arg(config);
    host.spawn("kea", &mut command)?.wait_for_log("DHCP4_STARTED", STEP_DEADLINE)?;
    Ok(host)
}

/// Powers a machine on, waits until its first stage has the release, and sees that it is the machine that the settings
/// name: beside a site's server the node knows that only from the boot script's question.
fn boots(
    cluster: &Cluster,
    dhcp: &str,
    firmware: Firmware,
    memory_mib: u32,
) -> anyhow::Result<(HostNode, MachineNode)> {
    let origin = cluster.start_host("origin", cluster.make_home("origin")?, &["--dhcp", dhcp])?;
    let file = cluster.lab().directory().join("machines.toml");
    std::fs::write(&file, format!("[node.interop]\nmac = '{MAC}'\nkernel-args = '{ARGUMENT}'\n"))?;
    let mut set = Command::new(cluster.program());
    set.args(["machines", "set"]).arg(&file).arg("--fabric").arg(&origin.home);
    set.arg("--state").arg(cluster.lab().directory().join("origin.state"));
    ensure!(set.status()?.success(), "the file about machines was not set");
    let spec = MachineSpec::new("a", firmware).memory_mib(memory_mib).mac(MAC.parse()?);
    let node = cluster.power_on_as(&spec)?;
    node.wait_for("release-verified").with_context(|| node.machine.describe())?;
    ensure!(node.machine.console().contains(ARGUMENT), "the kernel line is not the machine's");
    println!("{:.1} s: a first stage with the release", cluster.lab().elapsed().as_secs_f64());
    Ok((origin, node))
}

/// The same beside a site's server, whose the machine's address is and stays.
fn boots_beside(
    name: &'static str,
    site: Site,
    dhcp: &str,
    firmware: Firmware,
    memory_mib: u32,
) -> anyhow::Result<Option<(Cluster, MachineNode)>> {
    let program = Path::new(env!("CARGO_BIN_EXE_bootfabric"));
    let Some(cluster) = Cluster::in_test(program, name, RootKind::Busybox, Boot::Bios)? else {
        return Ok(None);
    };
    let site = start_site(&cluster, site)?;
    let (origin, machine) = boots(&cluster, dhcp, firmware, memory_mib)?;
    let mac = machine.machine.mac();
    let trace = cluster.capture().trace()?;
    let node = origin.node.address;
    let mut answers = 0;
    for seen in trace.dhcp_of(mac).filter(|seen| seen.server_id() == Some(node) && seen.message.op == 2) {
        ensure!(seen.yiaddr.is_unspecified(), "the proxy gave an address: {seen:?}");
        answers += 1;
    }
    ensure!(answers > 0, "the proxy never spoke: somebody else told the machine what to load");
    let lease = trace.dhcp_of(mac).any(|seen| seen.source_mac == site.mac() && !seen.yiaddr.is_unspecified());
    ensure!(lease, "the site gave no address");
    Ok(Some((cluster, machine)))
}

/// Questions of the machine on port 4011.
fn questions_on_4011(cluster: &Cluster, mac: Mac) -> anyhow::Result<usize> {
    let trace = cluster.capture().trace()?;
    Ok(trace.dhcp_of(mac).filter(|seen| seen.message.op == 1 && seen.destination_port == 4011).count())
}

fn uefi(boot: UefiBoot) -> Firmware {
    Firmware::Uefi(Uefi { boot, ..Uefi::default() })
}

/// The node finds the site's server by itself. Firmware loads no more than kernel and first stage, so little memory is enough.
#[test]
fn d11_d12_x7_the_smallest_bios_machine_boots_beside_dnsmasq_and_a_proxy() -> anyhow::Result<()> {
    let booted = boots_beside("biosdnsmasq", Site::Dnsmasq, "auto", Firmware::Bios, LEAST_MEMORY_MIB)?;
    let Some((cluster, machine)) = booted else { return Ok(()) };
    ensure!(
        questions_on_4011(&cluster, machine.machine.mac())? == 0,
        "iPXE had server and file, and asked all the same"
    );
    Ok(())
}

#[test]
fn d1_d4_d5_uefi_boots_beside_kea_and_a_proxy_by_port_4011() -> anyhow::Result<()> {
    let firmware = uefi(UefiBoot::PxeV4);
    let booted = boots_beside("uefikea", Site::Kea, "proxy-4011", firmware, UEFI_MEMORY_MIB)?;
    let Some((cluster, machine)) = booted else { return Ok(()) };
    ensure!(questions_on_4011(&cluster, machine.machine.mac())? > 0, "port 4011 was not asked");
    Ok(())
}

#[test]
fn d2_uefi_boots_beside_dnsmasq_and_a_proxy_by_the_offer_alone() -> anyhow::Result<()> {
    let firmware = uefi(UefiBoot::PxeV4);
    let booted = boots_beside("uefidnsmasq", Site::Dnsmasq, "auto", firmware, UEFI_MEMORY_MIB)?;
    let Some((cluster, machine)) = booted else { return Ok(()) };
    ensure!(
        questions_on_4011(&cluster, machine.machine.mac())? == 0,
        "EDK2 had the file, and asked all the same"
    );
    Ok(())
}

#[test]
fn x7_a_small_bios_machine_boots_beside_kea_and_a_proxy() -> anyhow::Result<()> {
    let booted = boots_beside("bioskea", Site::Kea, "auto", Firmware::Bios, SMALL_MEMORY_MIB)?;
    let Some((cluster, machine)) = booted else { return Ok(()) };
    machine.booted(cluster.root())?;
    Ok(())
}

/// Where the loader that firmware fetched has no script beside itself, it goes on to ask for one by DHCP.
#[test]
fn h1_h9_uefi_boots_a_loader_by_http() -> anyhow::Result<()> {
    let program = Path::new(env!("CARGO_BIN_EXE_bootfabric"));
    let Some(cluster) = Cluster::in_test(program, "httploader", RootKind::Busybox, Boot::Uefi)? else {
        return Ok(());
    };
    let (origin, _) = boots(&cluster, "full", uefi(UefiBoot::HttpV4), UEFI_MEMORY_MIB)?;
    let trace = cluster.capture().trace()?;
    ensure!(trace.requests_for("snponly.efi").any(|request| request.method == "GET"), "no loader by HTTP");
    ensure!(trace.requests.iter().all(|request| request.method != "RRQ"), "TFTP was used");
    // Debian's iPXE is too old to look; to one that does, the answer must be a plain no.
    let mut curl = origin.host.command("curl");
    curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}"]);
    let answer = curl.arg(format!("http://{}/autoexec.ipxe", origin.node.address)).output()?;
    ensure!(answer.stdout == b"404", "{}", String::from_utf8_lossy(&answer.stdout));
    Ok(())
}

/// From power-on until the boot script is asked for.
fn time_to_script(cluster: &Cluster, name: &str) -> anyhow::Result<Duration> {
    let began = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let node = cluster.power_on(name, None)?;
    let mac = node.machine.mac();
    let asked = cluster.capture().wait_for("a question for the boot script", STEP_DEADLINE, |trace| {
        let address = trace.dhcp_of(mac).filter(|seen| seen.kind == DhcpKind::Ack).last()?.yiaddr;
        trace
            .requests_for("boot.ipxe")
            .find(|request| request.client == address && request.time > began)
            .map(|request| request.time)
    })?;
    node.machine.kill()?;
    Ok(asked.saturating_sub(began))
}

/// The same ROM, once served by a node and once by dnsmasq, which tells it nothing of waiting: there it waits for a proxy and for
/// an IPv6 router. On an idle machine the first is held to 3.5 s.
#[test]
fn d13_ipxe_asks_for_its_script_in_a_third_of_the_time_that_it_takes_with_its_waits() -> anyhow::Result<()> {
    let program = Path::new(env!("CARGO_BIN_EXE_bootfabric"));
    let Some(cluster) = Cluster::in_test(program, "waits", RootKind::Busybox, Boot::Bios)? else {
        return Ok(());
    };
    let origin = cluster.start_host("origin", cluster.make_home("origin")?, &["--dhcp", "full"])?;
    let without = time_to_script(&cluster, "a")?;
    origin.process.kill()?;
    let script = format!("--dhcp-boot=http://{}/boot.ipxe", SITE.parse::<Cidr>()?.address);
    let site = start_dnsmasq(&cluster, &[&script])?;
    // Asked is enough: the kernel accepts what nobody serves.
    let _listener = site.run_in(|| TcpListener::bind("0.0.0.0:80"))??;
    let with = time_to_script(&cluster, "b")?;
    println!(
        "power-on to script: {:.2} s, {:.2} s with the waits",
        without.as_secs_f64(),
        with.as_secs_f64()
    );
    ensure!(without * 3 <= with, "{without:?} is more than a third of {with:?}");
    if std::env::var_os("BOOTFABRIC_MEASURE").is_some() {
        ensure!(without <= Duration::from_millis(3500), "{without:?}");
    }
    Ok(())
}
