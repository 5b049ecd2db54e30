use super::*;

const FILE: &str = "gatepost.toml";

fn resolve(flags: Flags, env: &[(&str, &str)], file: Option<&str>) -> Outcome<Settings> {
    let environment = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
    Settings::resolve(&flags, &environment, file.map(|text| (Path::new(FILE), text)))
}

fn listen(text: &str) -> Flags {
    Flags { listen: Some(text.to_owned()), ..Flags::default() }
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    let env = [("GATEPOST_LISTEN", "127.0.0.1:2")];
    let file = "# first\nlisten = \"127.0.0.1:3\"\n";
    let empty = [("GATEPOST_LISTEN", "")];
    let cases = [
        (listen("127.0.0.1:1"), &env[..], Some(file), "127.0.0.1:1", "flag --listen"),
        (listen("127.0.0.1:1"), &[], None, "127.0.0.1:1", "flag --listen"),
        (Flags::default(), &env[..], Some(file), "127.0.0.1:2", "environment GATEPOST_LISTEN"),
        (Flags::default(), &empty[..], Some(file), "127.0.0.1:3", "file gatepost.toml:2"),
        (Flags::default(), &[], Some(file), "127.0.0.1:3", "file gatepost.toml:2"),
        (Flags::default(), &empty[..], Some(""), "127.0.0.1:8080", "default"),
        (Flags::default(), &[], None, "127.0.0.1:8080", "default"),
    ];
    for (flags, env, file, value, origin) in cases {
        let settings = resolve(flags, env, file).unwrap();
        assert_eq!(settings.listen.value.to_string(), value);
        assert_eq!(settings.listen.origin.to_string(), origin);
    }
}

#[test]
fn every_setting_can_be_set_by_the_environment_and_by_the_file() {
    let key = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=";
    let values = [
        ("listen", "0.0.0.0:0"),
        ("data_dir", "/var/lib/gatepost"),
        ("database_url", "postgres://u:p@db/x"),
        ("admin_key", "an-admin-key-of-thirty-two-letters"),
        ("master_key", key),
        ("allow_nets", "127.0.0.0/8,::1/128"),
        ("extra_ca", "ca.pem"),
        ("public_url", "https://hooks.example.com/gp"),
        ("max_body_bytes", "2048"),
        ("memory_mib", "256"),
        ("hooks", "bypass"),
        ("log", "warn,gatepost_engine=debug"),
        ("log_format", "json"),
    ];
    let env: Vec<_> = ALL
        .iter()
        .zip(values)
        .map(|(name, (key, value))| {
            assert_eq!(name.key, key);
            (name.env, value)
        })
        .collect();
    let file: String = values.iter().map(|(key, value)| format!("{key} = \"{value}\"\n")).collect();
    let by_env = resolve(Flags::default(), &env, None).unwrap().shown();
    let by_file = resolve(Flags::default(), &[], Some(&file)).unwrap().shown();
    for (index, (key, value)) in values.iter().enumerate() {
        for (row, origin) in [
            (&by_env[index], format!("environment {}", ALL[index].env)),
            (&by_file[index], format!("file {FILE}:{}", index + 1)),
        ] {
            assert_eq!((row.name, &row.origin, row.set), (*key, &origin, true));
            assert_eq!(row.value.as_deref(), (!row.secret).then_some(*value));
        }
    }
    let secrets: Vec<_> = by_env.iter().filter(|row| row.secret).map(|row| row.name).collect();
    assert_eq!(secrets, ["database_url", "admin_key", "master_key"]);
}

#[test]
fn the_file_takes_numbers_and_lists_too() {
    let file = "max_body_bytes = 4096\nallow_nets = [\"10.0.0.0/8\", \"fd00::/8\"]\n";
    let settings = resolve(Flags::default(), &[], Some(file)).unwrap();
    assert_eq!(settings.max_body_bytes.value, 4096);
    assert_eq!(settings.allow_nets.value.len(), 2);
}

#[test]
fn a_bad_value_is_named_with_its_origin_and_what_would_be_right() {
    type Case = (&'static [(&'static str, &'static str)], &'static str, &'static [&'static str]);
    let cases: [Case; 25] = [
        (&[("GATEPOST_LISTEN", "8080")], "", &["listen", "environment GATEPOST_LISTEN", "127.0.0.1:8080"]),
        (&[("GATEPOST_LISTEN", "localhost")], "", &["listen", "IP:port"]),
        (&[("GATEPOST_ALLOW_NETS", "127.0.0.1")], "", &["allow_nets", "\"127.0.0.1\"", "127.0.0.0/8"]),
        (&[("GATEPOST_MASTER_KEY", "c2hvcnQ=")], "", &["master_key", "32 bytes", "openssl rand"]),
        (&[("GATEPOST_ADMIN_KEY", "two words")], "", &["admin_key", "without spaces"]),
        (&[("GATEPOST_ADMIN_KEY", "a-key-of-thirty-one-characters-")], "", &["admin_key", "at least 32"]),
        (&[("GATEPOST_PUBLIC_URL", "hooks.example.com")], "", &["public_url", "https://"]),
        (&[("GATEPOST_PUBLIC_URL", "https://a.example/?x=1")], "", &["public_url", "leave out"]),
        (&[("GATEPOST_MAX_BODY_BYTES", "1MB")], "", &["max_body_bytes", "whole number"]),
        (&[("GATEPOST_MAX_BODY_BYTES", "10")], "", &["max_body_bytes", "1024"]),
        (&[("GATEPOST_MEMORY_MIB", "1GiB")], "", &["memory_mib", "environment GATEPOST_MEMORY_MIB", "128"]),
        (&[("GATEPOST_MEMORY_MIB", "127")], "", &["memory_mib", "\"127\"", "from 128 to 1048576"]),
        (&[("GATEPOST_MEMORY_MIB", "-1")], "", &["memory_mib", "whole number"]),
        (&[], "memory_mib = 9999999999\n", &["memory_mib", "file gatepost.toml:1"]),
        (
            &[("GATEPOST_MAX_BODY_BYTES", "67108864")],
            "\nmemory_mib = 512\n",
            &["max_body_bytes", "67108864", "memory_mib (file gatepost.toml:2) is 512", "raise memory_mib"],
        ),
        (&[("GATEPOST_HOOKS", "off")], "", &["hooks", "on or bypass"]),
        (&[("GATEPOST_LOG", "a=b=c")], "", &["setting log ", "environment GATEPOST_LOG"]),
        (&[("GATEPOST_LOG", "loud")], "", &["setting log ", "loud=info"]),
        (&[("GATEPOST_LOG_FORMAT", "xml")], "", &["log_format", "text or json"]),
        (&[], "listen = \"x\"", &["listen", "file gatepost.toml:1"]),
        (&[], "\n\nlisten = 8080\n", &["listen", "file gatepost.toml:3"]),
        (&[], "\nlistn = \"127.0.0.1:1\"\n", &["gatepost.toml:2:", "unknown setting \"listn\"", "listen"]),
        (&[], "[server]\nlisten = \"127.0.0.1:1\"\n", &["gatepost.toml:1:", "unknown setting \"server\""]),
        (&[], "log = \"info\"\nlisten = true\n", &["gatepost.toml:2:", "must be a text"]),
        (&[], "log = \"info\"\nlisten = \n", &["gatepost.toml:2:"]),
    ];
    for (env, file, parts) in cases {
        let failure = resolve(Flags::default(), env, Some(file)).expect_err(file);
        assert_eq!(failure.code(), 2, "{failure}");
        for part in parts {
            assert!(failure.to_string().contains(part), "{failure}: no {part}");
        }
    }
}

#[test]
fn p7_errors_about_secrets_do_not_repeat_them() {
    for env in [("GATEPOST_MASTER_KEY", "very-secret"), ("GATEPOST_ADMIN_KEY", "very-secret words")] {
        let failure = resolve(Flags::default(), &[env], None).unwrap_err();
        assert!(!failure.to_string().contains("very-secret"), "{failure}");
    }
    let settings = resolve(Flags::default(), &[("GATEPOST_DATABASE_URL", "postgres://u:pass@h/d")], None).unwrap();
    let failure = settings.check_supported().unwrap_err();
    assert_eq!(failure.code(), 2);
    assert!(failure.to_string().contains("PostgreSQL") && !failure.to_string().contains("pass@"), "{failure}");
    assert!(!format!("{settings:?}").contains("pass@"));
}

#[test]
fn a_variable_that_is_nearly_a_setting_is_told() {
    let told = |names: &[&str]| Settings::unknown_variables(names.iter().map(|name| (*name).into()));
    let nearly = told(&["GATEPOST_ALOW_NETS", "GATEPOST_LISTEN", "GATEPOST_KEY", "HOME"]);
    assert_eq!(nearly.len(), 1, "{nearly:?}");
    assert!(nearly[0].contains("GATEPOST_ALOW_NETS") && nearly[0].contains("GATEPOST_ALLOW_NETS?"), "{nearly:?}");
    let odd = told(&["GATEPOST_SOMETHING_ELSE"]);
    assert!(odd[0].contains("config show"), "{odd:?}");
}
