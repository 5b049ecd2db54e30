//! `gatepost demo`: everything at work, from one command.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::harness::{Client, command, run, signal};

#[test]
fn the_demo_delivers_the_samples_and_ends_well() {
    let folder = tempfile::tempdir().unwrap();
    let ran = run(folder.path(), &["demo", "--once"], &[]).expect(0);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    // The real sample of Cryptr's document and catalogue examples, each verified as it lands.
    assert!(said.contains("dir_sync.user.update.success"), "{said}");
    assert!(said.contains("signature verified"), "{said}");
    assert!(!said.contains("not verified") && !said.contains("panicked"), "{said}");
    // Its folder was a throwaway.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn the_demo_needs_no_free_port_of_its_choice_and_no_setting() {
    let folder = tempfile::tempdir().unwrap();
    // Two at once do not stand in each other's way.
    let both = std::thread::scope(|scope| {
        let runs = [(); 2].map(|()| scope.spawn(|| run(folder.path(), &["demo", "--once"], &[]).code));
        runs.map(|run| run.join().unwrap())
    });
    assert_eq!(both, [Some(0), Some(0)]);
}

#[test]
fn the_demo_stays_up_with_its_address_and_key_on_screen() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = command(folder.path(), &[])
        .args(["demo", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut address = None;
    // The key comes last: by then everything has been shown.
    let key = lines.by_ref().find_map(|line| {
        let words = || line.split(|c: char| c.is_whitespace() || c == '"' || c == '\'');
        let found = words().find_map(|word| word.strip_prefix("http://127.0.0.1:")).map(|rest| {
            let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
            format!("127.0.0.1:{port}")
        });
        address = address.take().or(found);
        assert!(!line.contains("gp_"), "there is no terminal: {line}");
        words().find(|word| word.ends_with("admin.key")).map(|file| std::fs::read_to_string(file).unwrap())
    });
    let key = key.map(|key| key.trim().to_owned());
    let (key, address) = (key.expect("its key"), address.expect("its address"));
    let mut client = Client::new(address.parse().unwrap(), &key);
    let tenants = client.get("/v1/tenants").expect(200).json();
    assert_eq!(tenants["data"][0]["id"], "demo");
    signal(demo.id(), "TERM");
    assert_eq!(demo.wait().unwrap().code(), Some(0));
}
