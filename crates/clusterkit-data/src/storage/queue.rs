//! What waits for a worker. Pushing never blocks: whoever pushes looks at the bytes that wait, and takes nothing new
//! when they are many.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use clusterkit_core::replica::ReplicaKey;

use super::limits::{STATE_THREADS, STEP_BYTES_MAX, STEP_INPUTS_MAX};
use super::shared::lock;
use super::{LogInput, StateInput};

/// Inputs in order, counted in bytes.
#[derive(Debug)]
pub(super) struct Queue<T> {
    waiting: Mutex<Waiting<T>>,
    bell: Condvar,
}

#[derive(Debug)]
struct Waiting<T> {
    inputs: VecDeque<(usize, T)>,
    bytes: usize,
    is_closed: bool,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Arc<Self> {
        let waiting = Waiting { inputs: VecDeque::new(), bytes: 0, is_closed: false };
        Arc::new(Self { waiting: Mutex::new(waiting), bell: Condvar::new() })
    }

    /// Puts an input at the end. Once the queue is closed it is dropped.
    pub(super) fn push(&self, input: T, bytes: usize) {
        let mut waiting = lock(&self.waiting);
        if waiting.is_closed {
            return;
        }
        waiting.bytes += bytes;
        waiting.inputs.push_back((bytes, input));
        drop(waiting);
        self.bell.notify_one();
    }

    /// As [`push`](Self::push), unless as many inputs wait: then it is given back.
    pub(super) fn try_push(&self, input: T, count_max: usize) -> Result<(), T> {
        let mut waiting = lock(&self.waiting);
        if waiting.is_closed || waiting.inputs.len() >= count_max {
            return Err(input);
        }
        waiting.inputs.push_back((0, input));
        drop(waiting);
        self.bell.notify_one();
        Ok(())
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        lock(&self.waiting).bytes
    }

    /// Inputs for one step, without waiting for any.
    #[cfg(test)]
    pub(super) fn take(&self) -> Vec<T> {
        lock(&self.waiting).take()
    }

    /// Inputs for one step: waits for the first for as long, and gives none if none came. Nothing once the queue is
    /// closed and empty.
    pub(super) fn wait(&self, timeout: Option<Duration>) -> Option<Vec<T>> {
        let idle = |waiting: &mut Waiting<T>| waiting.inputs.is_empty() && !waiting.is_closed;
        let waiting = lock(&self.waiting);
        let mut waiting = match timeout {
            Some(timeout) => {
                let outcome = self.bell.wait_timeout_while(waiting, timeout, idle);
                outcome.unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.bell.wait_while(waiting, idle).unwrap_or_else(PoisonError::into_inner),
        };
        let is_over = waiting.is_closed && waiting.inputs.is_empty();
        (!is_over).then(|| waiting.take())
    }

    /// Takes nothing more. What waits is still given out.
    pub(super) fn close(&self) {
        lock(&self.waiting).is_closed = true;
        self.bell.notify_all();
    }
}

impl<T> Waiting<T> {
    fn take(&mut self) -> Vec<T> {
        let (mut taken, mut bytes_taken) = (Vec::new(), 0);
        while taken.len() < STEP_INPUTS_MAX
            && let Some((bytes, _)) = self.inputs.front()
            && (taken.is_empty() || bytes_taken + bytes <= STEP_BYTES_MAX)
            && let Some((bytes, input)) = self.inputs.pop_front()
        {
            bytes_taken += bytes;
            taken.push(input);
        }
        self.bytes -= bytes_taken;
        taken
    }
}

/// What waits for the log worker.
#[derive(Debug, Clone)]
pub(crate) struct LogQueue(pub(super) Arc<Queue<LogInput>>);

impl LogQueue {
    /// Puts an input at the end. Never blocks.
    pub(crate) fn push(&self, input: LogInput) {
        let bytes = input.bytes();
        self.0.push(input, bytes);
    }

    /// Bytes that wait. From [`QUEUED_BYTES_MAX`](super::QUEUED_BYTES_MAX) on, take no new writes.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.0.bytes()
    }
}

/// What waits for the state workers.
#[derive(Debug, Clone)]
pub(crate) struct StateQueue(pub(super) [Arc<Queue<StateInput>>; STATE_THREADS]);

impl StateQueue {
    /// Puts an input at the end of those of its replica. Never blocks.
    pub(crate) fn push(&self, input: StateInput) {
        let bytes = input.bytes();
        self.0[worker_of(input.key())].push(input, bytes);
    }

    /// Bytes that wait for the worker that has most. From [`QUEUED_BYTES_MAX`](super::QUEUED_BYTES_MAX) on, take no new
    /// writes and no new questions.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.0.iter().map(|queue| queue.bytes()).max().unwrap_or(0)
    }
}

/// Which state worker a replica has.
pub(super) fn worker_of(key: ReplicaKey) -> usize {
    usize::try_from(key.uid.0 % STATE_THREADS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_takes_as_many_bytes_as_it_may_and_one_input_at_least() {
        let queue = Queue::new();
        queue.push(1, STEP_BYTES_MAX + 1);
        queue.push(2, STEP_BYTES_MAX);
        queue.push(3, 0);
        queue.push(4, 1);
        assert_eq!(queue.bytes(), 2 * STEP_BYTES_MAX + 2);
        assert_eq!(queue.take(), [1]);
        assert_eq!((queue.take(), queue.bytes()), (vec![2, 3], 1));
        assert_eq!(queue.take(), [4]);
    }

    #[test]
    fn a_closed_queue_gives_what_it_has_and_takes_nothing() {
        let queue = Queue::new();
        queue.push(1, 0);
        queue.close();
        queue.push(2, 0);
        assert_eq!(queue.try_push(3, 9), Err(3));
        assert_eq!(queue.wait(None), Some(vec![1]));
        assert_eq!(queue.wait(None), None);
    }

    #[test]
    fn a_queue_with_a_bound_gives_back_what_is_too_much() {
        let queue = Queue::new();
        assert_eq!(queue.try_push(1, 1), Ok(()));
        assert_eq!(queue.try_push(2, 1), Err(2));
    }
}
