//! The operator's routes on a unix socket: who may connect, what is there before it, and its end.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tallygate::directory::Role;
use tallygate::{Gate, GateBuilder};
use tallygate_axum::admin_socket;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

async fn gate() -> Gate {
    let service = "store.kind = \"memory\"\nflush.mode = \"fast\"";
    let plans = "default-plan = \"free\"\n[plan.free]\nquota.requests = \"10/day\"\n";
    GateBuilder::from_text(service).plans(plans).open().await.unwrap()
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    (folder, path)
}

/// The whole answer to a request with these headers and this body.
async fn ask(path: &Path, line: &str, more: &str, body: &str) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    let head = format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{more}");
    let sent = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(sent.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn list(path: &Path) -> String {
    ask(path, "GET /tenants", "", "").await
}

#[tokio::test]
async fn its_owner_needs_no_token_and_a_token_is_its_operators() {
    let (gate, (_folder, path)) = (gate().await, folder());
    let socket = admin_socket(&gate, &path).await.unwrap();
    assert_eq!(socket.path(), path);
    assert!(list(&path).await.starts_with("HTTP/1.1 200"));
    let new = r#"{"id":"acme","reason":"signed up"}"#;
    assert!(ask(&path, "POST /tenants", "", new).await.starts_with("HTTP/1.1 201"));
    let token = gate.directory().new_operator("kim", Role::Write).await.unwrap();
    let header = format!("authorization: Bearer {}\r\n", token.expose());
    let change = r#"{"suspended":true,"reason":"abuse"}"#;
    assert!(ask(&path, "PATCH /tenants/acme", &header, change).await.starts_with("HTTP/1.1 200"));
    let acme = gate.directory().find("acme").await.unwrap().unwrap();
    let history = acme.history().await.unwrap();
    let actors: Vec<_> = history.iter().map(|entry| entry.actor.clone().unwrap()).collect();
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&path).unwrap());
    assert_eq!(actors, [format!("uid {uid}"), "kim".to_owned()]);
    let wrong = "authorization: Bearer tgop_x\r\n";
    assert!(ask(&path, "GET /tenants", wrong, "").await.starts_with("HTTP/1.1 401"));
    let of_another = "sec-fetch-site: cross-site\r\n";
    let refused = ask(&path, "POST /tenants", of_another, new).await;
    assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
    socket.close().await;
    gate.close().await.unwrap();
}

/// While sockets come and go none is seen with wider rights.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_never_there_with_wider_rights() {
    let (gate, (folder, path)) = (gate().await, folder());
    let is_over = Arc::new(AtomicBool::new(false));
    let watched = {
        let (is_over, path) = (is_over.clone(), path.clone());
        std::thread::spawn(move || {
            let mut seen = 0;
            while !is_over.load(Ordering::Relaxed) {
                if let Ok(meta) = std::fs::symlink_metadata(&path) {
                    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
                    seen += 1;
                }
            }
            seen
        })
    };
    for _ in 0..200 {
        admin_socket(&gate, &path).await.unwrap().close().await;
    }
    is_over.store(true, Ordering::Relaxed);
    assert!(watched.join().unwrap() > 0);
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap()).collect();
    assert_eq!(left.len(), 1, "the lock alone: {left:?}");
    gate.close().await.unwrap();
}

#[tokio::test]
async fn what_else_is_there_is_left_as_it_is() {
    let (gate, (folder, path)) = (gate().await, folder());
    std::fs::write(&path, "mine").unwrap();
    let error = admin_socket(&gate, &path).await.unwrap_err();
    assert!(error.to_string().contains("no socket, so it is left as it is"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    // A link is no socket, whatever it leads to.
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(admin_socket(&gate, &link).await.unwrap_err().to_string().contains("no socket"));
    // A link in place of its lock would make a file of another name, and a pipe block.
    let linked = folder.path().join("c.sock");
    let elsewhere = folder.path().join("elsewhere");
    std::os::unix::fs::symlink(&elsewhere, folder.path().join("c.sock.lock")).unwrap();
    let error = admin_socket(&gate, &linked).await.unwrap_err();
    assert!(error.to_string().contains("c.sock.lock: it is there and is no file"), "{error}");
    assert!(!elsewhere.exists());
    // A folder of the name that it needs, with something in it.
    let other = folder.path().join("b.sock");
    std::fs::create_dir(folder.path().join("b.sock.new")).unwrap();
    std::fs::write(folder.path().join("b.sock.new/mine"), "mine").unwrap();
    admin_socket(&gate, &other).await.unwrap_err();
    assert!(folder.path().join("b.sock.new/mine").exists());
    gate.close().await.unwrap();
}

#[tokio::test]
async fn a_socket_that_is_listened_on_is_left_alone_and_a_dead_one_replaced() {
    let (gate, (_folder, path)) = (gate().await, folder());
    // Another program's, alive and then dead.
    let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let error = admin_socket(&gate, &path).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse, "{error}");
    drop(other);
    let socket = admin_socket(&gate, &path).await.unwrap();
    // Our own.
    let error = admin_socket(&gate, &path).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse, "{error}");
    assert!(list(&path).await.starts_with("HTTP/1.1 200"));
    // One that has taken its place is not ours to remove.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "mine").unwrap();
    socket.close().await;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    gate.close().await.unwrap();
}

#[tokio::test]
async fn a_path_that_is_too_long_is_said_to_be() {
    let (gate, (folder, _)) = (gate().await, folder());
    let error = admin_socket(&gate, folder.path().join("a".repeat(120))).await.unwrap_err();
    assert!(error.to_string().contains("too long for a socket"), "{error}");
    gate.close().await.unwrap();
}

/// Sixteen are all that there may be at once.
#[tokio::test]
async fn connections_that_send_nothing_do_not_keep_their_places() {
    let (gate, (_folder, path)) = (gate().await, folder());
    let socket = admin_socket(&gate, &path).await.unwrap();
    let mut idle = Vec::new();
    for _ in 0..16 {
        idle.push(UnixStream::connect(&path).await.unwrap());
    }
    let answer = tokio::time::timeout(Duration::from_secs(30), list(&path)).await;
    assert!(answer.expect("an answer before the connections' end").starts_with("HTTP/1.1 200"));
    drop(idle);
    socket.close().await;
    gate.close().await.unwrap();
}

/// It ends when it is dropped, and with the gate; a request that began is answered.
#[tokio::test]
async fn it_ends_with_its_owner_and_with_the_gate() {
    let gate = gate().await;
    let (_folder, path) = folder();
    let socket = admin_socket(&gate, &path).await.unwrap();
    let mut open = UnixStream::connect(&path).await.unwrap();
    open.write_all(b"GET /tenants HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let closing = tokio::spawn(socket.close());
    until_gone(&path).await;
    open.write_all(b"\r\n").await.unwrap();
    let mut answer = String::new();
    open.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    closing.await.unwrap();

    drop(admin_socket(&gate, &path).await.unwrap());
    until_gone(&path).await;
    let socket = admin_socket(&gate, &path).await.unwrap();
    gate.close().await.unwrap();
    until_gone(&path).await;
    socket.close().await;
}

async fn until_gone(path: &Path) {
    let gone = async {
        while path.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.unwrap();
}

/// Sixteen are served at once; the next waits until one ends.
#[tokio::test]
async fn connections_are_bounded() {
    let (gate, (_folder, path)) = (gate().await, folder());
    let socket = admin_socket(&gate, &path).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..16 {
        held.push(UnixStream::connect(&path).await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let more = list(&path);
    tokio::pin!(more);
    assert!(tokio::time::timeout(Duration::from_millis(500), &mut more).await.is_err());
    held.pop();
    let answer = tokio::time::timeout(Duration::from_secs(20), more).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(held);
    socket.close().await;
    gate.close().await.unwrap();
}

/// Where its rights were widened by hand, the kernel's word about the other side still holds. Only
/// root can be another user.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn another_user_is_refused_whatever_the_rights() {
    let (gate, (folder, path)) = (gate().await, folder());
    let socket = admin_socket(&gate, &path).await.unwrap();
    if std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&path).unwrap()) != 0 {
        return;
    }
    let wide = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    wide(folder.path(), 0o755);
    let script = "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n\
                  s.sendall(b'GET /tenants HTTP/1.0\\r\\nhost: x\\r\\n\\r\\n')\n\
                  print(s.recv(99).decode())";
    let as_user = async |uid: &str| {
        let mut command = tokio::process::Command::new("setpriv");
        command
            .args(["--reuid", uid, "--clear-groups", "/usr/bin/python3", "-c", script])
            .arg(&path);
        let ran = command.output().await.unwrap();
        String::from_utf8(ran.stdout).unwrap() + &String::from_utf8(ran.stderr).unwrap()
    };
    let said = as_user("65534").await;
    assert!(said.contains("PermissionError"), "{said}");
    wide(&path, 0o666);
    let said = as_user("65534").await;
    assert!(!said.contains("HTTP/"), "{said}");
    let said = as_user("0").await;
    assert!(said.contains(" 200 OK"), "{said}");
    socket.close().await;
    gate.close().await.unwrap();
}
