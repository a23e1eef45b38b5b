//! Servers by their host and port, and the slots of a Cluster: whose slot is it, and who owns it.
//!
//! Invariant: nothing here talks to anybody; what a server answered is read, and what is odd in it is passed over.

use std::fmt;

use redis::Value;

/// Slots of a Cluster.
const SLOTS: u16 = 16_384;

/// A server's host (an address without brackets) and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) host: String,
    pub(super) port: u16,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Node {
    /// `host:port` as MOVED says it; an address with colons has no brackets there.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        Some(Self { host: host.to_owned(), port: port.parse().ok()? }).filter(|node| !node.host.is_empty())
    }

    pub(super) fn parts(&self) -> (String, u16) {
        (self.host.clone(), self.port)
    }
}

/// Servers in a text.
pub(super) fn list(nodes: &[Node]) -> String {
    nodes.iter().map(Node::to_string).collect::<Vec<_>>().join(", ")
}

/// The node in an answer's host and port. An empty host is the one that was asked.
pub(super) fn node_of(pair: &[Value], asked: &str) -> Option<Node> {
    let text = |value: Option<&Value>| match value {
        Some(Value::BulkString(bytes)) => String::from_utf8(bytes.clone()).ok(),
        Some(Value::Int(number)) => Some(number.to_string()),
        Some(Value::Nil) => Some(String::new()),
        _ => None,
    };
    let host = text(pair.first())?;
    let port = text(pair.get(1))?.parse().ok()?;
    let host = if host.is_empty() { asked.to_owned() } else { host };
    (host != "?").then_some(Node { host, port })
}

/// The owner of a slot, and every node, in what CLUSTER SLOTS answers.
pub(super) fn read_slots(answer: Value, slot: u16, asked: &str) -> (Option<Node>, Vec<Node>) {
    let (mut owner, mut nodes) = (None, Vec::new());
    let Value::Array(ranges) = answer else { return (None, nodes) };
    for range in ranges {
        let Value::Array(range) = range else { continue };
        let [Value::Int(first), Value::Int(last), servers @ ..] = range.as_slice() else { continue };
        for (n, server) in servers.iter().enumerate() {
            let Value::Array(parts) = server else { continue };
            let Some(node) = node_of(parts, asked) else { continue };
            if n == 0 && (*first..=*last).contains(&i64::from(slot)) {
                owner = Some(node.clone());
            }
            if !nodes.contains(&node) {
                nodes.push(node);
            }
        }
    }
    (owner, nodes)
}

/// What of a key is hashed on a Cluster, when that is not the whole key.
pub(super) fn hash_tag(key: &str) -> Option<&str> {
    let (_, rest) = key.split_once('{')?;
    let (tag, _) = rest.split_once('}')?;
    (!tag.is_empty()).then_some(tag)
}

/// The slot of a hash tag: CRC-16 of XMODEM, bit by bit.
pub(super) fn slot_of(tag: &[u8]) -> u16 {
    let crc = tag.iter().fold(0_u16, |crc, byte| {
        (0..8)
            .fold(crc ^ (u16::from(*byte) << 8), |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 })
    });
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_the_one_that_redis_computes() {
        // As `CLUSTER KEYSLOT` answers.
        assert_eq!(slot_of(b"123456789"), 12_739);
        assert_eq!(slot_of(b"foo"), 12_182);
        assert_eq!(hash_tag("{wasmhost}:job:a"), Some("wasmhost"));
        assert_eq!(hash_tag("a{b}{c}"), Some("b"));
        assert_eq!(hash_tag("{}a"), None);
        assert_eq!(hash_tag("wasmhost"), None);
    }

    #[test]
    fn the_owner_of_a_slot_is_read_also_without_a_host() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let node = |host: Value, port| Value::Array(vec![host, Value::Int(port), text("id"), Value::Array(vec![])]);
        let range = |first, last, nodes: Vec<Value>| {
            Value::Array([Value::Int(first), Value::Int(last)].into_iter().chain(nodes).collect())
        };
        let answer = Value::Array(vec![
            range(0, 99, vec![node(text("10.0.0.1"), 1)]),
            range(100, 199, vec![node(Value::Nil, 2), node(text("?"), 3)]),
        ]);
        let (owner, nodes) = read_slots(answer, 150, "asked");
        assert_eq!(owner.unwrap().to_string(), "asked:2");
        assert_eq!(list(&nodes), "10.0.0.1:1, asked:2");
        assert_eq!(Node::parse("::1:7000").unwrap().to_string(), "[::1]:7000");
    }
}
