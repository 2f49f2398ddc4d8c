use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use redis::{Cmd, ServerError, Value};
use tokio::time::{Instant, sleep};

use crate::address::Address;
use crate::cluster::{Cluster, redirection};
use crate::error::{Cause, Failure, Verdict, refused, verdict};
use crate::layout::Bucket;
use crate::link::{Link, Options, Target, read_only};
use crate::script::Call;

/// How often a request follows where it is sent on to.
const REDIRECTIONS: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// The servers that the data is on.
#[derive(Debug)]
pub(crate) struct Servers {
    kind: Kind,
    options: Options,
}

#[derive(Debug)]
enum Kind {
    One(Arc<Link>),
    Cluster(Box<Cluster>),
}

/// What is asked of the server of a slot. The first command alone names keys.
#[derive(Clone, Copy)]
pub(crate) enum Request<'a> {
    /// Commands that change nothing.
    Read(&'a [Cmd]),
    /// A script that may change something.
    Write(&'a Call<'a>),
}

/// What a request has met with so far.
struct Course {
    deadline: Instant,
    /// Until when it is tried again.
    patience: Instant,
    pause: Duration,
    redirections: u32,
    resent: bool,
    refreshed: bool,
}

impl Servers {
    pub(crate) fn new(address: Address, options: Options) -> Self {
        let kind = match address {
            Address::One(target) => Kind::One(Arc::new(Link::new(target, options))),
            Address::Cluster(first, others) => Kind::Cluster(Box::new(Cluster::new(first, &others, options))),
        };
        Self { kind, options }
    }

    pub(crate) fn options(&self) -> Options {
        self.options
    }

    /// Connects to every server that holds data.
    pub(crate) async fn open(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + self.options.timeout;
        let links = match &self.kind {
            Kind::One(link) => vec![Arc::clone(link)],
            Kind::Cluster(cluster) => {
                cluster.route(0, deadline).await?;
                cluster.owners()
            }
        };
        try_join_all(links.iter().map(|link| link.open(deadline))).await.map(drop)
    }

    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self.kind, Kind::Cluster(_))
    }

    /// Each server that holds data, with the first of these buckets that it has, and until when to ask it.
    pub(crate) async fn each(
        &self,
        buckets: impl Iterator<Item = (Bucket, u16)>,
    ) -> Result<Vec<(Arc<Link>, Bucket, Instant)>, Failure> {
        let deadline = Instant::now() + self.options.timeout;
        let mut found: Vec<(Arc<Link>, Bucket, Instant)> = Vec::new();
        for (bucket, slot) in buckets {
            let link = match &self.kind {
                Kind::One(link) => Arc::clone(link),
                Kind::Cluster(cluster) => cluster.route(slot, deadline).await?.0,
            };
            if !found.iter().any(|(known, ..)| Arc::ptr_eq(known, &link)) {
                found.push((link, bucket, deadline));
            }
        }
        Ok(found)
    }

    /// Whether what was acknowledged survives, as far as the servers have said.
    ///
    /// Replicas are sent a write after it is acknowledged. Where one of them takes over by itself, the last writes go.
    pub(crate) fn are_durable(&self) -> bool {
        match &self.kind {
            Kind::One(link) => {
                let writes_through = link.setup().is_some_and(|setup| setup.writes_through);
                writes_through && !matches!(link.target(), Target::Watched(_))
            }
            Kind::Cluster(cluster) => {
                let owners = cluster.owners();
                let keeps =
                    |link: &Arc<Link>| link.setup().is_some_and(|setup| setup.writes_through && setup.replicas == 0);
                !owners.is_empty() && owners.iter().all(keeps)
            }
        }
    }

    /// Has a request done by the server of a slot, wherever that is by now, and returns its answers.
    ///
    /// What certainly changed nothing is tried again where that may help, for half of the time-out.
    pub(crate) async fn ask(&self, slot: u16, request: Request<'_>) -> Result<Vec<Value>, Failure> {
        let mut course = Course::new(self.options.timeout);
        let mut commands = request.commands();
        let mut instead = None;
        loop {
            let asking = instead.take();
            let (link, generation) = match (&asking, &self.kind) {
                (Some(link), _) => (Arc::clone(link), None),
                (None, Kind::One(link)) => (Arc::clone(link), None),
                (None, Kind::Cluster(cluster)) => {
                    let (link, generation) = cluster.route(slot, course.deadline).await?;
                    (link, Some(generation))
                }
            };
            if matches!(request, Request::Write(_)) {
                // What goes wrong here goes wrong below, too.
                let _ = link.test(course.deadline).await;
            }
            let answers = match send(&link, &commands, asking.is_some(), course.deadline).await {
                Ok(answers) => answers,
                Err(failure) => {
                    course.may_repeat(failure, request, &self.kind)?;
                    self.look_again(generation, &course).await?;
                    continue;
                }
            };
            let Some(error) = answers.iter().find_map(server_error) else { return Ok(answers) };
            match verdict(error.code(), error.details().unwrap_or_default()) {
                Verdict::NoScript => commands = request.commands_with_text(error)?,
                Verdict::Moved | Verdict::Ask => instead = self.follow(slot, error, &link, &mut course)?,
                Verdict::Again => course.wait(refused(error)).await?,
                Verdict::NotPrimary => {
                    link.reopen();
                    course.wait(self.not_primary(error)).await?;
                    self.look_again(generation, &course).await?;
                }
                Verdict::WrongType | Verdict::Later | Verdict::Advice(_) => return Err(refused(error)),
            }
        }
    }

    /// Follows a redirection: returns the link to use instead, once, or notes where the slot is from now on.
    fn follow(
        &self,
        slot: u16,
        error: &ServerError,
        link: &Link,
        course: &mut Course,
    ) -> Result<Option<Arc<Link>>, Failure> {
        let Kind::Cluster(cluster) = &self.kind else { return Err(refused(error)) };
        course.redirections += 1;
        let node =
            redirection(error.details().unwrap_or_default(), link).filter(|_| course.redirections <= REDIRECTIONS);
        let Some(node) = node else { return Err(Failure::Unchanged(Cause::answer(error))) };
        if error.code() == "ASK" {
            return Ok(Some(cluster.node(node)));
        }
        cluster.moved(slot, node);
        Ok(None)
    }

    /// Finds out anew who serves what, in a Cluster.
    async fn look_again(&self, generation: Option<u64>, course: &Course) -> Result<(), Failure> {
        match (&self.kind, generation) {
            (Kind::Cluster(cluster), Some(generation)) => cluster.refresh(generation, course.deadline).await,
            _ => Ok(()),
        }
    }

    fn not_primary(&self, error: &ServerError) -> Failure {
        match &self.kind {
            Kind::One(link) if matches!(link.target(), Target::Primary(_)) && error.code() == "READONLY" => {
                read_only(Cause::answer(error))
            }
            _ => Failure::Unchanged(Cause::answer(error)),
        }
    }
}

impl Request<'_> {
    fn commands(&self) -> Vec<Cmd> {
        match self {
            Self::Read(commands) => commands.to_vec(),
            Self::Write(call) => vec![call.by_hash()],
        }
    }

    /// The same for a server that does not know the script.
    fn commands_with_text(&self, error: &ServerError) -> Result<Vec<Cmd>, Failure> {
        match self {
            Self::Read(_) => Err(refused(error)),
            Self::Write(call) => Ok(vec![call.by_text()]),
        }
    }
}

impl Course {
    fn new(timeout: Duration) -> Self {
        let start = Instant::now();
        Self {
            deadline: start + timeout,
            patience: start + timeout / 2,
            pause: FIRST_PAUSE,
            redirections: 0,
            resent: false,
            refreshed: false,
        }
    }

    /// Waits a moment before another try; fails where that would take too long or does not help.
    async fn wait(&mut self, failure: Failure) -> Result<(), Failure> {
        if matches!(failure, Failure::Misconfigured(..)) || Instant::now() + self.pause > self.patience {
            return Err(failure);
        }
        sleep(self.pause).await;
        self.pause = LONGEST_PAUSE.min(self.pause * 2);
        Ok(())
    }

    /// Whether a request that got no answers may be sent again, on another connection; fails if not.
    fn may_repeat(&mut self, failure: Failure, request: Request<'_>, kind: &Kind) -> Result<(), Failure> {
        let first_time = match (&failure, request) {
            // The connection broke. A read can be repeated; a write may have been done.
            (Failure::Unanswered(_), Request::Read(_)) => !std::mem::replace(&mut self.resent, true),
            // There was no connection to send on. In a Cluster another server may have taken over.
            (Failure::Unchanged(_), _) => {
                matches!(kind, Kind::Cluster(_)) && !std::mem::replace(&mut self.refreshed, true)
            }
            _ => false,
        };
        if first_time && Instant::now() < self.patience { Ok(()) } else { Err(failure) }
    }
}

/// Sends commands; to a server that is about to take over a slot, each with ASKING before it.
async fn send(link: &Link, commands: &[Cmd], asking: bool, deadline: Instant) -> Result<Vec<Value>, Failure> {
    if !asking {
        return link.send(commands, deadline).await;
    }
    let announced: Vec<_> = commands.iter().flat_map(|command| [redis::cmd("ASKING"), command.clone()]).collect();
    let answers = link.send(&announced, deadline).await?;
    Ok(answers.into_iter().skip(1).step_by(2).collect())
}

fn server_error(answer: &Value) -> Option<&ServerError> {
    if let Value::ServerError(error) = answer { Some(error) } else { None }
}
