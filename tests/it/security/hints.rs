//! What the command line advises when it cannot reach a server: the advice fits the cause.

use super::tls::Authority;
use super::{lineshaft, text};
use crate::support::Server;

#[test]
fn the_hint_of_a_failed_connection_fits_its_cause() {
    let (authority, other) = (Authority::new(), Authority::new());
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    for (name, content) in [("ca.pem", authority.pem()), ("other.pem", other.pem()), ("none.pem", "none".to_owned())] {
        std::fs::write(path(name), content).unwrap();
    }
    let (plain, tls) = (Server::start(""), Server::start(&authority.install(directory.path())));
    let client_ca = format!("{}client_ca = \"{}\"\n", authority.install(directory.path()), path("ca.pem"));
    let mutual = Server::start(&client_ca);
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (certificate, key) = authority.sign("server", &["elsewhere.example"]);
    std::fs::write(path("elsewhere.pem"), certificate).unwrap();
    std::fs::write(path("elsewhere.key"), key).unwrap();
    let elsewhere =
        format!("[tls]\ncertificate = \"{}\"\nkey = \"{}\"\n", path("elsewhere.pem"), path("elsewhere.key"));
    let elsewhere = Server::start(&elsewhere);
    let (ca, other) = (["--tls-ca", &path("ca.pem")], ["--tls-ca", &path("other.pem")]);
    for (server, options, code, expected) in [
        (format!("http://{unused}"), &[][..], 4, "start a server with `lineshaft serve`"),
        ("http://nosuch.invalid:7070".to_owned(), &[], 4, "correct the host name"),
        (format!("http://{}", tls.address), &[], 4, "write https://"),
        (format!("https://{}", plain.address), &ca, 4, "write http://"),
        (format!("https://{}", tls.address), &other, 4, "name its file with --tls-ca"),
        (format!("https://{}", elsewhere.address), &ca, 4, "write a name that the server's certificate has"),
        (format!("https://{}", mutual.address), &ca, 4, "pass --tls-cert and --tls-key"),
        (format!("https://{}", tls.address), &["--tls-ca", &path("none.pem")], 2, "has no certificate in PEM format"),
        (format!("ftp://{unused}"), &[], 2, "the scheme must be http or https"),
        (format!("http://me:hush@{unused}"), &[], 2, "a URL has no user or password here"),
    ] {
        let output = lineshaft(&[&["task", "list", "--server", &server], options].concat());
        let printed = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{server} {options:?}: {printed}");
        let starts_a_server = printed.contains("lineshaft serve");
        assert!(printed.contains(expected) && !printed.contains("hush"), "{server} {options:?}: {printed}");
        assert_eq!(starts_a_server, expected.contains("lineshaft serve"), "{server} {options:?}: {printed}");
    }
}
