//! A wire between a store and its Redis that can lose an answer: the server has executed the command, the client never
//! hears of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A running proxy; it ends with the test's runtime.
pub struct Proxy {
    url: String,
    /// Answers that are still to be lost.
    to_lose: Arc<AtomicU32>,
}

impl Proxy {
    /// A proxy before the server at `url` (`redis://host:port`).
    pub async fn before(url: &str) -> Self {
        let server = url.trim_start_matches("redis://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("redis://{}", listener.local_addr().expect("an address"));
        let to_lose = Arc::new(AtomicU32::new(0));
        let lost = Arc::clone(&to_lose);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&server).await else { continue };
                tokio::spawn(carry(client, server, Arc::clone(&lost)));
            }
        });
        Self { url, to_lose }
    }

    /// The address to give to a store.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Loses the next answer of the server, and closes that connection.
    pub fn lose_next_answer(&self) {
        self.to_lose.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether everything that was to be lost has been.
    #[must_use]
    pub fn has_lost_all(&self) -> bool {
        self.to_lose.load(Ordering::SeqCst) == 0
    }
}

/// Carries bytes both ways until one side ends or an answer is lost.
async fn carry(client: TcpStream, server: TcpStream, to_lose: Arc<AtomicU32>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let requests = async { tokio::io::copy(&mut from_client, &mut to_server).await.map(drop) };
    let answers = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let n = from_server.read(&mut buffer).await?;
            let is_lost = to_lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
            if n == 0 || is_lost {
                return std::io::Result::Ok(());
            }
            to_client.write_all(&buffer[..n]).await?;
        }
    };
    // Whichever ends first drops both halves, and with them both connections.
    tokio::select! { _ = requests => {}, _ = answers => {} }
}
