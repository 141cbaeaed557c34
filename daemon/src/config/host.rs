//! The address to listen on, in every form `DSK_HOST` and `OLLAMA_HOST` are written.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

/// Ollama's port: every client of its API looks here.
pub const PORT: u16 = 11434;

/// Parses `host`, `host:port`, `:port`, `[v6]:port` and `http://host[:port][/]`.
///
/// The port is 11434, or the scheme's own when one is written without a port.
pub fn parse(text: &str) -> Result<SocketAddr, String> {
    let (rest, default_port) = match text.split_once("://") {
        Some(("http", rest)) => (rest, 80),
        Some(("https", rest)) => (rest, 443),
        Some((scheme, _)) => return Err(format!("{scheme}:// is not http:// or https://")),
        None => (text, PORT),
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let (host, port) = split(authority)?;
    let port = match port {
        Some(port) => port.parse().map_err(|_| format!("{port:?} is not a port (0 to 65535)"))?,
        None => default_port,
    };
    Ok(SocketAddr::new(address(host)?, port))
}

fn split(authority: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(inner) = authority.strip_prefix('[') {
        let (host, tail) = inner.split_once(']').ok_or("a [v6] address lacks its ]")?;
        return match tail.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if tail.is_empty() => Ok((host, None)),
            None => Err(format!("{tail:?} follows the address")),
        };
    }
    if authority.parse::<std::net::Ipv6Addr>().is_ok() {
        return Ok((authority, None));
    }
    Ok(match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    })
}

fn address(host: &str) -> Result<IpAddr, String> {
    if host.is_empty() || host.eq_ignore_ascii_case("localhost") {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    let resolved = (host, 0).to_socket_addrs().ok().and_then(|mut found| found.next());
    resolved.map(|found| found.ip()).ok_or_else(|| format!("{host:?} is no address and no name"))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    #[test]
    fn every_form_of_a_host() {
        let mut table = String::new();
        for text in [
            "127.0.0.1:11434",
            "127.0.0.1",
            "localhost",
            ":8080",
            "0.0.0.0",
            "http://127.0.0.1",
            "https://127.0.0.1",
            "http://localhost:1234/",
            "::1",
            "[::1]",
            "[::1]:99",
            "[::1",
            "[::1]x",
            "127.0.0.1:70000",
            "127.0.0.1:",
            "ftp://127.0.0.1",
            "",
        ] {
            let parsed = super::parse(text).map_or_else(|e| e, |address| address.to_string());
            table += &format!("{text:?} -> {parsed}\n");
        }
        expect![[r#"
            "127.0.0.1:11434" -> 127.0.0.1:11434
            "127.0.0.1" -> 127.0.0.1:11434
            "localhost" -> 127.0.0.1:11434
            ":8080" -> 127.0.0.1:8080
            "0.0.0.0" -> 0.0.0.0:11434
            "http://127.0.0.1" -> 127.0.0.1:80
            "https://127.0.0.1" -> 127.0.0.1:443
            "http://localhost:1234/" -> 127.0.0.1:1234
            "::1" -> [::1]:11434
            "[::1]" -> [::1]:11434
            "[::1]:99" -> [::1]:99
            "[::1" -> a [v6] address lacks its ]
            "[::1]x" -> "x" follows the address
            "127.0.0.1:70000" -> "70000" is not a port (0 to 65535)
            "127.0.0.1:" -> "" is not a port (0 to 65535)
            "ftp://127.0.0.1" -> ftp:// is not http:// or https://
            "" -> 127.0.0.1:11434
        "#]]
        .assert_eq(&table);
    }
}
