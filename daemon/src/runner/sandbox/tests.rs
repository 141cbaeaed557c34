//! A process confines itself as a runner does and then tries what it must not and must be able to do.
#![expect(unsafe_code, reason = "calls that no safe library wraps are tried, too")]

use std::{
    fs::{self, File, OpenOptions},
    io,
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::{
        net::{UnixListener, UnixStream},
        process::{CommandExt as _, parent_id},
    },
    path::{Path, PathBuf},
    process::Command,
};

use libc::c_long;

use super::*;

/// The folder of the test; set in the confined process only.
const FOLDER: &str = "DSK_TEST_SANDBOX_FOLDER";
const PORT: &str = "DSK_TEST_SANDBOX_PORT";
const MODEL: &[u8] = b"a model";

#[test]
fn a_confined_process_can_run_its_model_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("model"), MODEL).unwrap();
    fs::write(folder.path().join("other"), "of somebody else").unwrap();
    let _unix = UnixListener::bind(folder.path().join("socket")).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "runner::sandbox::tests::inside", "--nocapture"])
        .env(FOLDER, folder.path())
        .env(PORT, tcp.local_addr().unwrap().port().to_string())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{text}");
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("tried everything"), "the process said nothing: {text}");
    assert_eq!(fs::read(folder.path().join("model")).unwrap(), MODEL);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "nothing was made");
}

/// The confined half. Without the variables it is a test of its own that has nothing to do.
#[test]
fn inside() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let port: u16 = std::env::var(PORT).unwrap().parse().unwrap();
    let model = folder.join("model");
    let confinement = confine(&[&model]);
    println!("{confinement}");
    assert_eq!(confinement.calls, Enforced::Full, "{confinement}");
    assert_eq!(confinement.limits, Enforced::Full, "{confinement}");
    what_a_runner_does_works(&model);
    no_network(&folder, port);
    no_programs_or_processes();
    no_writing(&folder, &model);
    no_other_calls();
    match &confinement.files {
        // What only Landlock can refuse is promised only with it.
        Enforced::Not(why) => println!("reading other files is not refused here: {why}"),
        _ => no_other_files(&folder),
    }
    println!("tried everything");
}

fn what_a_runner_does_works(model: &Path) {
    assert_eq!(fs::read(model).unwrap(), MODEL);
    let map = dsk_daemon_engine::gguf::Gguf::open(model);
    assert!(format!("{map:?}").contains("Err"), "opened and found to be no GGUF");
    let memory = vec![1u8; 64 << 20];
    let sums: Vec<usize> = std::thread::scope(|scope| {
        let threads = memory.chunks(16 << 20).map(|part| {
            let named = std::thread::Builder::new().name("worker".to_owned());
            named.spawn_scoped(scope, move || part.iter().map(|byte| usize::from(*byte)).sum())
        });
        threads.map(|thread| thread.unwrap().join().unwrap()).collect()
    });
    assert_eq!(sums.iter().sum::<usize>(), 64 << 20);
    assert!(std::thread::available_parallelism().is_ok());
    assert!(std::time::Instant::now().elapsed().as_secs() < 1);
    for fact in ["/proc/meminfo", "/proc/self/status", "/proc/self/cgroup"] {
        assert!(fs::read_to_string(fact).is_ok_and(|text| !text.is_empty()), "{fact}");
    }
    std::thread::sleep(std::time::Duration::from_millis(1));
}

fn no_network(folder: &Path, port: u16) {
    refused("a TCP connection", TcpStream::connect(("127.0.0.1", port)));
    refused("a TCP listener", TcpListener::bind("127.0.0.1:0"));
    refused("a UDP socket", UdpSocket::bind("127.0.0.1:0"));
    refused("a Unix connection", UnixStream::connect(folder.join("socket")));
    refused("a Unix listener", UnixListener::bind(folder.join("mine")));
    refused("a socket pair", UnixStream::pair());
}

fn no_programs_or_processes() {
    refused("starting a program", Command::new("/bin/true").spawn());
    refused("becoming a program", Err::<(), _>(Command::new("/bin/true").exec()));
    #[cfg(target_arch = "x86_64")]
    refused("fork", call(libc::SYS_fork, [0; 3]));
    refused("clone without a thread's flags", call(libc::SYS_clone, [17, 0, 0]));
    let clone3 = call(libc::SYS_clone3, [0; 3]).unwrap_err();
    assert_eq!(clone3.raw_os_error(), Some(libc::ENOSYS), "so that the C library takes clone");
    let parent = c_long::from(parent_id());
    refused("tracing the parent", call(libc::SYS_ptrace, [16, parent, 0]));
    refused("a signal to the parent", call(libc::SYS_kill, [parent, 0, 0]));
    refused("a signal to a thread of the parent", call(libc::SYS_tgkill, [parent, parent, 0]));
    refused("the parent's limits", call(libc::SYS_prlimit64, [parent, 7, 0]));
    refused("outliving the daemon", call(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG.into(), 0, 0]));
    refused("the parent's memory", call(libc::SYS_process_vm_readv, [parent, 0, 0]));
}

fn no_writing(folder: &Path, model: &Path) {
    let mut write = OpenOptions::new();
    write.write(true);
    refused("writing to the model", write.open(model));
    refused("appending to the model", OpenOptions::new().append(true).open(model));
    refused("emptying the model", File::create(model));
    refused("making a file", File::create(folder.join("new")));
    refused("making a file in /tmp", File::create("/tmp/dsk-sandbox-test"));
    refused("making a folder", fs::create_dir(folder.join("folder")));
    refused("removing the model", fs::remove_file(model));
    refused("a link to another file", std::os::unix::fs::symlink("/etc/passwd", folder.join("l")));
    // Not among the calls of a runner at all.
    assert!(fs::rename(model, folder.join("moved")).is_err());
}

fn no_other_calls() {
    for (name, number) in [
        ("openat2", libc::SYS_openat2),
        ("open_by_handle_at", libc::SYS_open_by_handle_at),
        ("io_uring_setup", libc::SYS_io_uring_setup),
        ("bpf", libc::SYS_bpf),
        ("perf_event_open", libc::SYS_perf_event_open),
        ("userfaultfd", libc::SYS_userfaultfd),
        ("keyctl", libc::SYS_keyctl),
        ("mount", libc::SYS_mount),
        ("unshare", libc::SYS_unshare),
        ("setns", libc::SYS_setns),
        ("memfd_create", libc::SYS_memfd_create),
        ("pidfd_getfd", libc::SYS_pidfd_getfd),
    ] {
        refused(name, call(number, [0; 3]));
    }
    // The same call by the number of another binary interface is no way around.
    #[cfg(target_arch = "x86_64")]
    assert!(call(libc::SYS_socket | 0x4000_0000, [1, 1, 0]).is_err());
}

fn no_other_files(folder: &Path) {
    refused("another file beside the model", File::open(folder.join("other")));
    refused("the folder of the model", fs::read_dir(folder));
    refused("/etc/passwd", File::open("/etc/passwd"));
    refused("/etc/passwd by way of /proc", File::open("/proc/self/root/etc/passwd"));
    refused("the parent's variables", File::open(format!("/proc/{}/environ", parent_id())));
    refused("the root folder", fs::read_dir("/"));
    refused("a device", File::open("/dev/zero"));
}

fn refused<T>(what: &str, tried: io::Result<T>) {
    match tried {
        Ok(_) => panic!("{what} worked"),
        Err(error) => assert!(
            matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES)),
            "{what} failed for another reason: {error}"
        ),
    }
}

fn call(number: c_long, arguments: [c_long; 3]) -> io::Result<()> {
    let [one, two, three] = arguments;
    // SAFETY: the filter answers before the kernel looks at any argument; were one not refused, the
    // arguments are null pointers, small numbers and process ids, which no call writes through.
    let result = unsafe { libc::syscall(number, one, two, three, 0, 0, 0) };
    match result {
        // A process of its own would go on with the tests.
        0 if number == libc::SYS_clone => std::process::exit(99),
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[test]
fn what_is_missing_is_said() {
    let landlock = "the kernel lacks Landlock".to_owned();
    let shown = [
        (Enforced::Full, Enforced::Full),
        (Enforced::Partial("no TCP".to_owned()), Enforced::Full),
        (Enforced::Not(landlock.clone()), Enforced::Full),
        (Enforced::Not(landlock), Enforced::Not("seccomp failed".to_owned())),
    ]
    .map(|(files, calls)| Confinement { files, calls, limits: Enforced::Full }.to_string());
    expect_test::expect![[r#"
        [
            "confined",
            "confined in part: no TCP",
            "not confined: the kernel lacks Landlock",
            "not confined: the kernel lacks Landlock; seccomp failed",
        ]
    "#]]
    .assert_debug_eq(&shown);
}

#[test]
fn a_probe_leaves_this_process_as_it_was() {
    let probed = probe();
    assert_eq!(probed.calls, Enforced::Full, "{probed}");
    TcpListener::bind("127.0.0.1:0").expect("this thread is not confined");
    File::open("/etc/passwd").expect("nor here");
}
