//! A wire between a store and its Redis. It can lose an answer: the server has executed the command, the client never
//! hears of it; the next one when asked to, or any one by chance. And it can swap words of the requests, so that the
//! server runs another script than the one it was asked to.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A running proxy; it ends with the test's runtime.
pub struct Proxy {
    url: String,
    loss: Arc<Loss>,
    n_swapped: Arc<AtomicU32>,
    n_connections: Arc<AtomicU32>,
    /// Where new connections lead.
    server: Arc<Mutex<String>>,
}

/// Which answers are lost.
#[derive(Default)]
struct Loss {
    /// Answers that are still to be lost.
    to_lose: AtomicU32,
    /// Out of so many million answers one is lost by chance.
    per_million: AtomicU32,
    /// The state of the random numbers.
    dice: AtomicU64,
    n_lost: AtomicU32,
}

impl Loss {
    /// Whether the answer that has just come is lost.
    fn is_due(&self) -> bool {
        let is_asked =
            self.to_lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        let is_lost = is_asked || self.is_unlucky();
        if is_lost {
            self.n_lost.fetch_add(1, Ordering::SeqCst);
        }
        is_lost
    }

    fn is_unlucky(&self) -> bool {
        let per_million = self.per_million.load(Ordering::SeqCst);
        per_million > 0 && self.roll() % 1_000_000 < u64::from(per_million)
    }

    /// The next number of `SplitMix64`.
    fn roll(&self) -> u64 {
        let step = 0x9e37_79b9_7f4a_7c15_u64;
        let mut z = self.dice.fetch_add(step, Ordering::SeqCst).wrapping_add(step);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Words that are swapped on the way to the server, each for one of the same length.
type Swaps = Vec<(String, String)>;

impl Proxy {
    /// A proxy before the server at `url` (`redis://host:port`).
    pub async fn before(url: &str) -> Self {
        Self::swapping(url, Vec::new()).await
    }

    /// A proxy that swaps words in every request: hashes of scripts, which occur nowhere else.
    pub async fn swapping(url: &str, swaps: Swaps) -> Self {
        assert!(swaps.iter().all(|(from, to)| from.len() == to.len()), "a word and its place have one length");
        let server = Arc::new(Mutex::new(address(url)));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("redis://{}", listener.local_addr().expect("an address"));
        let loss = Arc::new(Loss::default());
        let n_swapped = Arc::new(AtomicU32::new(0));
        let n_connections = Arc::new(AtomicU32::new(0));
        let (lost, swapped, swaps) = (Arc::clone(&loss), Arc::clone(&n_swapped), Arc::new(swaps));
        let (connections, target) = (Arc::clone(&n_connections), Arc::clone(&server));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let target = target.lock().unwrap().clone();
                let Ok(server) = TcpStream::connect(&target).await else { continue };
                // Else a small packet waits for the acknowledgement of the one before.
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                let swapper = Swapper { swaps: Arc::clone(&swaps), n_swapped: Arc::clone(&swapped) };
                tokio::spawn(carry(client, server, Arc::clone(&lost), swapper));
            }
        });
        Self { url, loss, n_swapped, n_connections, server }
    }

    /// The address to give to a store.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Leads new connections to another server; those that stand stay where they are.
    pub fn point_at(&self, url: &str) {
        *self.server.lock().unwrap() = address(url);
    }

    /// Connections made so far, to whichever server, also those it did not take.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.n_connections.load(Ordering::SeqCst)
    }

    /// Loses the next answer of the server, and closes that connection.
    pub fn lose_next_answer(&self) {
        self.loss.to_lose.fetch_add(1, Ordering::SeqCst);
    }

    /// From now on loses so many of a million answers by chance; which ones follows from the seed and from the order in
    /// which they come.
    pub fn lose_by_chance(&self, per_million: u32, seed: u64) {
        self.loss.dice.store(seed, Ordering::SeqCst);
        self.loss.per_million.store(per_million, Ordering::SeqCst);
    }

    /// Answers lost so far.
    #[must_use]
    pub fn lost(&self) -> u32 {
        self.loss.n_lost.load(Ordering::SeqCst)
    }

    /// Whether everything that was to be lost has been.
    #[must_use]
    pub fn has_lost_all(&self) -> bool {
        self.loss.to_lose.load(Ordering::SeqCst) == 0
    }

    /// Words swapped so far.
    #[must_use]
    pub fn swapped(&self) -> u32 {
        self.n_swapped.load(Ordering::SeqCst)
    }
}

fn address(url: &str) -> String {
    url.trim_start_matches("redis://").to_owned()
}

/// Swaps words in a stream.
struct Swapper {
    swaps: Arc<Swaps>,
    n_swapped: Arc<AtomicU32>,
}

impl Swapper {
    /// Swaps words in what was read so far, and answers how much of it can go on: the end may be the first half of a
    /// word. A whole request never is, it ends with a line feed.
    fn swap(&self, bytes: &mut [u8]) -> usize {
        let mut n_ready = bytes.len();
        for (from, to) in self.swaps.iter() {
            let from = from.as_bytes();
            while let Some(at) = bytes.windows(from.len()).position(|word| word == from) {
                bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
                self.n_swapped.fetch_add(1, Ordering::SeqCst);
            }
            let halves = (1..from.len().min(bytes.len() + 1)).rev();
            let half = halves.into_iter().find(|&n| bytes.ends_with(&from[..n])).unwrap_or(0);
            n_ready = n_ready.min(bytes.len() - half);
        }
        n_ready
    }
}

/// Carries bytes both ways until one side ends or an answer is lost.
async fn carry(client: TcpStream, server: TcpStream, loss: Arc<Loss>, swapper: Swapper) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let requests = async {
        let mut waiting = Vec::new();
        while from_client.read_buf(&mut waiting).await? > 0 {
            let n_ready = swapper.swap(&mut waiting);
            to_server.write_all(&waiting[..n_ready]).await?;
            waiting.drain(..n_ready);
        }
        std::io::Result::Ok(())
    };
    let answers = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let n = from_server.read(&mut buffer).await?;
            if n == 0 || loss.is_due() {
                return std::io::Result::Ok(());
            }
            to_client.write_all(&buffer[..n]).await?;
        }
    };
    // Whichever ends first drops both halves, and with them both connections.
    tokio::select! { _ = requests => {}, _ = answers => {} }
}
