//! A file of associations, one a line: `CLIENT APPLICATION SERVER`. A client is an address, a network (`10.1.0.0/16`) or `*`
//! for any, an application its name or `*`, a server `HOST:PORT` or a URI. Of several lines for a client the most precise
//! counts, of several as precise the last. What follows `#` is for people.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;

use crate::error::AssociationsError;
use crate::server::Server;

/// Stands for any client, or any application.
const ANY: &str = "*";

/// The lines of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rows(Vec<Row>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    /// None for any.
    clients: Option<IpNet>,
    /// None for any.
    application: Option<String>,
    server: Server,
}

impl Rows {
    /// Reads a file.
    ///
    /// # Errors
    /// [`AssociationsError`]; also where it has no line.
    pub(crate) fn read(path: &Path) -> Result<Self, AssociationsError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| AssociationsError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, AssociationsError> {
        let mut rows = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let tokens: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
            let malformed =
                |detail: String| AssociationsError::Malformed { path: path.to_owned(), line: at + 1, detail };
            match tokens[..] {
                [] => {}
                [client, application, server] => {
                    rows.push(Row {
                        clients: clients(client).map_err(malformed)?,
                        application: (application != ANY).then(|| application.to_owned()),
                        server: server
                            .parse()
                            .map_err(|error: crate::server::ServerError| malformed(error.to_string()))?,
                    });
                }
                _ => return Err(malformed(format!("{} words", tokens.len()))),
            }
        }
        if rows.is_empty() { Err(AssociationsError::Empty { path: path.to_owned() }) } else { Ok(Self(rows)) }
    }

    /// How many lines there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The server of a client.
    pub(crate) fn server(&self, client: IpAddr, application: &str) -> Option<&Server> {
        let precision = |row: &&Row| (row.clients.map(|network| network.prefix_len()), row.application.is_some());
        self.0.iter().filter(|row| row.covers(client, application)).max_by_key(precision).map(|row| &row.server)
    }
}

impl Row {
    fn covers(&self, client: IpAddr, application: &str) -> bool {
        self.clients.is_none_or(|network| network.contains(&client))
            && self.application.as_deref().is_none_or(|name| name == application)
    }
}

fn clients(given: &str) -> Result<Option<IpNet>, String> {
    if given == ANY {
        return Ok(None);
    }
    let address = given.parse::<IpAddr>().map(IpNet::from).ok();
    let network = address.or_else(|| given.parse().ok());
    network.map(Some).ok_or_else(|| format!("{given:?} is neither an address, nor a network, nor *"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Rows, String> {
        Rows::parse(text, "rows".as_ref()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_most_precise_line_counts_and_of_those_the_last() {
        let rows = parse(
            "* echo one:1\n# for people\n10.0.0.7 echo two:2\n10.0.0.0/8 echo three:3 # here too\n10.1.0.0/16 * four:4\n\n* * five:5\n10.0.0.7 echo six:6\n",
        )
        .unwrap();
        let server = |client: &str, application| rows.server(client.parse().unwrap(), application).map(Server::as_str);
        assert_eq!(rows.len(), 6);
        assert_eq!(server("192.0.2.1", "echo"), Some("one:1"));
        assert_eq!(server("10.0.0.7", "echo"), Some("six:6"));
        assert_eq!(server("10.2.0.7", "echo"), Some("three:3"));
        assert_eq!(server("10.1.0.7", "echo"), Some("four:4"));
        assert_eq!(server("::1", "other"), Some("five:5"));
        assert_eq!(parse("* echo a:1").unwrap().server("10.0.0.1".parse().unwrap(), "other"), None);
    }

    #[test]
    fn files_that_are_none_are_refused_by_line() {
        for (text, told) in [
            ("", "no association"),
            ("# nothing\n\n", "no association"),
            ("* echo", "1: 2 words"),
            ("* echo a:1\n* echo a:1 b", "2: 4 words"),
            ("everyone echo a:1", "neither an address"),
            ("10.0.0.0/33 echo a:1", "neither an address"),
            ("* echo nowhere", "names no server"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
        assert!(matches!(Rows::read("/nowhere/rows".as_ref()), Err(AssociationsError::Read { .. })));
    }
}
