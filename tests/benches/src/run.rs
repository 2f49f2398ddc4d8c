use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::subjects::{BenchResult, Operation, Subject, USERS};

/// How long, how often and with how many tasks each operation runs.
pub struct Plan {
    pub seconds: u64,
    pub rounds: u64,
    /// The numbers of concurrent tasks.
    pub tasks: Vec<u64>,
    /// How many records each store has.
    pub records: u64,
    /// The number of added records that were read.
    pub reads: Arc<AtomicU64>,
}

/// One of the stores that are compared.
pub struct Candidate {
    name: &'static str,
    subject: Arc<dyn Subject>,
    is_included: bool,
}

impl Candidate {
    pub fn new(name: &'static str, subject: impl Subject) -> Self {
        Self { name, subject: Arc::new(subject), is_included: true }
    }

    pub fn only_if(self, is_included: bool) -> Self {
        Self { is_included, ..self }
    }
}

impl Plan {
    /// Runs every candidate in turn, and prints the results.
    pub async fn compare(&self, backend: &str, mut candidates: Vec<Candidate>) -> BenchResult<()> {
        candidates.retain(|candidate| candidate.is_included);
        for candidate in &candidates {
            for user in 0..USERS {
                candidate.subject.run(Operation::Put, user).await?;
            }
        }
        // The candidates on one table need to add records only once.
        for candidate in &candidates {
            candidate.subject.add_records(self.added()).await?;
        }
        if self.added() > 0 {
            self.walk(backend, &candidates).await?;
        }
        for tasks in &self.tasks {
            println!("\n{backend}: operations per second, {tasks} tasks, {} records", self.records.max(USERS));
            self.compare_operations(*tasks, &candidates).await?;
        }
        Ok(())
    }

    /// The number of records that are added to those of the users.
    fn added(&self) -> u64 {
        self.records.saturating_sub(USERS)
    }

    /// Lists everything once, and prints how much memory this needs.
    async fn walk(&self, backend: &str, candidates: &[Candidate]) -> BenchResult<()> {
        for candidate in candidates {
            let (start, before) = (Instant::now(), peak_memory(true)?);
            let Some(count) = candidate.subject.walk().await? else { continue };
            let (time, grown) = (start.elapsed().as_secs_f64(), peak_memory(false)?.saturating_sub(before));
            println!("\n{backend}: {count} records listed in {time:.1} s and {grown} KiB of memory");
        }
        Ok(())
    }

    async fn compare_operations(&self, tasks: u64, candidates: &[Candidate]) -> BenchResult<()> {
        for operation in Operation::ALL {
            if operation == Operation::GetAdded && self.added() == 0 {
                continue;
            }
            let mut rates = vec![Vec::new(); candidates.len()];
            for _ in 0..self.rounds {
                for (candidate, rates) in candidates.iter().zip(&mut rates) {
                    rates.extend(self.rate(&candidate.subject, operation, tasks).await?);
                }
            }
            let Some(first) = rates.iter().find(|own| !own.is_empty()) else { continue };
            for (candidate, own) in candidates.iter().zip(&rates).filter(|(_, own)| !own.is_empty()) {
                let ratios: Vec<f64> = own.iter().zip(first).map(|(own, first)| own / first).collect();
                let [least, middle, most] = spread(ratios);
                let rate = spread(own.clone())[1];
                let operation = format!("{operation:?}");
                println!("{operation:>14}  {rate:>8.0}  x{middle:.2} ({least:.2}-{most:.2})  {}", candidate.name);
            }
        }
        Ok(())
    }

    /// Operations per second, or `None` if the subject has no such operation.
    async fn rate(&self, subject: &Arc<dyn Subject>, operation: Operation, count: u64) -> BenchResult<Option<f64>> {
        let time = Duration::from_secs(self.seconds);
        let (start, added) = (Instant::now(), self.added());
        let mut tasks = JoinSet::new();
        for task in 0..count {
            let (subject, reads) = (Arc::clone(subject), Arc::clone(&self.reads));
            tasks.spawn(async move {
                let (mut user, mut done) = (task, 0_u64);
                while start.elapsed() < time {
                    let number = match operation {
                        Operation::GetAdded => scattered(reads.fetch_add(1, Ordering::Relaxed), added),
                        _ => user,
                    };
                    let done_here = subject.run(operation, number).await;
                    if !done_here.map_err(|error| error.to_string())? {
                        return Ok(None);
                    }
                    done += 1;
                    user = (user + count) % USERS;
                }
                Ok::<_, String>(Some(done))
            });
        }
        let mut total = 0;
        while let Some(done) = tasks.join_next().await {
            let Some(done) = done?? else { return Ok(None) };
            total += done;
        }
        Ok(Some(total as f64 / start.elapsed().as_secs_f64()))
    }
}

/// Numbers that are spread over those below `limit`. The first hundred thousands do not repeat.
fn scattered(index: u64, limit: u64) -> u64 {
    (index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % limit
}

/// The most memory that this process had at once, in KiB; with `reset`, since now. Linux only.
fn peak_memory(reset: bool) -> BenchResult<u64> {
    if reset {
        std::fs::write("/proc/self/clear_refs", "5")?;
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(peak.trim().trim_end_matches(" kB").parse()?)
}

/// The minimum, the median and the maximum.
fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [values[0], values[values.len() / 2], values[values.len() - 1]]
}
