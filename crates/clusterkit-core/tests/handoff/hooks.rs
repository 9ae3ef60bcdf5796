//! The user's hooks: how long they take, how they end, and what they do to the user's store.

use std::time::Duration;

use clusterkit_core::handoff::{Call, Outcome, Stage, Token};
use clusterkit_core::time::Instant;

use crate::node::ProcessEvent;
use crate::planted::Mistake;
use crate::world::{World, index};

/// How often a copy looks whether its source is ready.
const POLL: Duration = Duration::from_millis(40);

/// How a hook behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Defers,
    /// Not even force ends it.
    Endless,
    Ends,
    /// Only force ends it.
    HangsUntilAborted,
    HangsUntilCancelled,
    Refuses,
}

/// A call that runs.
pub(crate) struct Hook {
    pub(crate) call: Call,
    pub(crate) place: Place,
    pub(crate) manner: Manner,
    pub(crate) aborted: bool,
    /// The process of the leader that it copies from, once it does.
    copies_from: Option<u64>,
    /// It answered, and runs on: a planted mistake.
    forsaken: bool,
}

/// What a call counts among.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Copies that are made, or given up, at once.
    Copy,
    /// What writes wait for, until it is late.
    NeededUntil(Instant),
    None,
}

impl Place {
    pub(crate) fn is_taken(self, now: Instant) -> bool {
        match self {
            Self::Copy => true,
            Self::NeededUntil(late_at) => late_at > now,
            Self::None => false,
        }
    }
}

pub(crate) enum HookEvent {
    Copied,
    Ends(Outcome),
    Progresses,
    Ready,
}

impl World {
    pub(crate) fn hook_begins(&mut self, node: usize, token: Token, call: &Call) {
        self.check_run(node, call);
        let manner = self.manner(node, call.stage());
        self.trace(|| format!("n{node}    hook #{token} {manner:?}"));
        let hook = Hook {
            place: self.place(node, call),
            call: call.clone(),
            manner,
            aborted: false,
            copies_from: None,
            forsaken: false,
        };
        self.process_mut(node).hooks.insert(token, hook);
        if self.answers_by_mistake(node, token, call) {
            return;
        }
        let delay = self.hook_latency(call.stage());
        match manner {
            Manner::Ends => self.tell_hook(delay, node, token, HookEvent::Ready),
            Manner::Defers => {
                let pause = self.chance.millis(0, 2_000);
                self.tell_hook(delay, node, token, HookEvent::Ends(Outcome::Deferred(pause)));
            }
            Manner::Refuses => {
                let refused = Outcome::Refused("simulated".to_string());
                self.tell_hook(delay, node, token, HookEvent::Ends(refused));
            }
            Manner::Endless | Manner::HangsUntilAborted | Manner::HangsUntilCancelled => {}
        }
        if call.stage() == Stage::CatchUp && !self.quiet && self.chance.percent(30) {
            self.tell_hook(Duration::from_secs(1), node, token, HookEvent::Progresses);
        }
    }

    fn answers_by_mistake(&mut self, node: usize, token: Token, call: &Call) -> bool {
        let place = match call {
            Call::CatchUp { partition, uid, .. } => Some((*partition, *uid)),
            _ => None,
        };
        let repeated = place.is_some_and(|place| self.process_mut(node).copied.contains(&place));
        let mistaken = (self.makes(Mistake::CopiedOnce) && repeated)
            || (self.makes(Mistake::SealedAtOnce) && call.stage() == Stage::Seal);
        if mistaken {
            self.process_mut(node).hooks.remove(&token);
            self.answer(node, token, Outcome::Done);
        }
        mistaken
    }

    fn manner(&mut self, node: usize, stage: Stage) -> Manner {
        if let Some((_, _, manner)) = self.settings.manner.filter(|(n, s, _)| (*n, *s) == (node, stage)) {
            return manner;
        }
        if self.quiet || !self.chance.percent(self.settings.mischief.hooks) {
            return Manner::Ends;
        }
        match self.chance.below(19) {
            0..=5 => Manner::Defers,
            6..=11 => Manner::Refuses,
            12..=14 => Manner::HangsUntilCancelled,
            15..=17 => Manner::HangsUntilAborted,
            _ => Manner::Endless,
        }
    }

    fn hook_latency(&mut self, stage: Stage) -> Duration {
        if !self.quiet && self.chance.percent(5) {
            return self.chance.millis(500, 6_000);
        }
        match stage {
            Stage::CatchUp if !self.quiet => self.chance.millis(5, 800),
            _ if !self.quiet => self.chance.millis(1, 120),
            _ => self.chance.millis(10, 40),
        }
    }

    pub(crate) fn tell_hook(&mut self, delay: Duration, node: usize, token: Token, event: HookEvent) {
        self.tell_process(delay, node, ProcessEvent::Hook(token, event));
    }

    pub(crate) fn hook_step(&mut self, node: usize, token: Token, event: HookEvent) {
        let Some(hook) = self.process_mut(node).hooks.get(&token) else { return };
        match event {
            HookEvent::Copied => self.copied(node, token),
            HookEvent::Ends(outcome) => self.hook_ends(node, token, outcome),
            HookEvent::Progresses => {
                self.progress(node, token);
                self.tell_hook(Duration::from_secs(1), node, token, HookEvent::Progresses);
            }
            HookEvent::Ready if hook.call.stage() == Stage::CatchUp => self.begin_copy(node, token),
            HookEvent::Ready => self.hook_ends(node, token, Outcome::Done),
        }
    }

    /// Code that listens ends soon, done or not.
    pub(crate) fn hook_cancelled(&mut self, node: usize, token: Token) {
        let Some(hook) = self.process_mut(node).hooks.get(&token) else { return };
        let (manner, stage) = (hook.manner, hook.call.stage());
        let listens = match manner {
            Manner::HangsUntilCancelled | Manner::Defers | Manner::Refuses => true,
            Manner::Ends => self.chance.percent(50),
            Manner::Endless | Manner::HangsUntilAborted => false,
        };
        if !listens {
            return;
        }
        let outcome = match self.chance.below(3) {
            0 if stage != Stage::CatchUp => Outcome::Done,
            1 => Outcome::Refused("cancelled".to_string()),
            _ => Outcome::Deferred(Duration::ZERO),
        };
        let delay = self.chance.millis(1, 60);
        self.tell_hook(delay, node, token, HookEvent::Ends(outcome));
    }

    pub(crate) fn hook_aborted(&mut self, node: usize, token: Token) {
        if self.makes(Mistake::AbortedAtOnce) {
            if let Some(hook) = self.process_mut(node).hooks.get_mut(&token) {
                hook.forsaken = true;
            }
            return self.answer(node, token, Outcome::Aborted);
        }
        let Some(hook) = self.process_mut(node).hooks.get_mut(&token) else { return };
        hook.aborted = true;
        if hook.manner != Manner::Endless {
            let delay = self.chance.millis(1, 40);
            self.tell_hook(delay, node, token, HookEvent::Ends(Outcome::Aborted));
        }
    }

    /// Faults are over: what hangs comes to an end.
    pub(crate) fn release_hooks(&mut self, node: usize) {
        let Some(process) = &mut self.nodes[node].process else { return };
        let mut hanging = Vec::new();
        for (token, hook) in &mut process.hooks {
            let hangs = !matches!(hook.manner, Manner::Ends | Manner::Defers | Manner::Refuses);
            hook.manner = Manner::Ends;
            if hangs {
                hanging.push((*token, hook.aborted));
            }
        }
        for (token, aborted) in hanging {
            let event = if aborted { HookEvent::Ends(Outcome::Aborted) } else { HookEvent::Ready };
            let delay = self.chance.millis(10, 500);
            self.tell_hook(delay, node, token, event);
        }
    }

    fn hook_ends(&mut self, node: usize, token: Token, outcome: Outcome) {
        let Some(hook) = self.process_mut(node).hooks.remove(&token) else { return };
        let (done, stage) = (outcome == Outcome::Done, hook.call.stage());
        self.trace(|| format!("n{node}    hook #{token} ends: {outcome:?}"));
        // What was ended by force may have done its work all the same.
        let works = outcome == Outcome::Aborted && stage != Stage::CatchUp && self.chance.percent(50);
        if done || works {
            self.take_effect(node, &hook.call);
        }
        if done && !hook.forsaken {
            self.note_done(node, &hook.call);
        }
        self.answer(node, token, outcome);
    }
}

// Copies.
impl World {
    /// A copy begins once its source sends new writes here too, and none is under way there that does
    /// not know of this copy.
    fn begin_copy(&mut self, node: usize, token: Token) {
        let hook = &self.process_mut(node).hooks[&token];
        let Call::CatchUp { partition, epoch, leader, version, .. } = hook.call.clone() else { return };
        let source = index(&leader);
        if !self.reach(node, source) || !self.serves_copies(source, partition, epoch, version) {
            return self.tell_hook(POLL, node, token, HookEvent::Ready);
        }
        let from = self.nodes[source].process.as_ref().map(|process| process.boot);
        let hook = self.process_mut(node).hooks.get_mut(&token).expect("it was just seen");
        hook.copies_from = from;
        let delay = if self.quiet { self.chance.millis(5, 60) } else { self.chance.millis(1, 600) };
        self.tell_hook(delay, node, token, HookEvent::Copied);
    }

    /// The copy is complete: it holds what its source holds now.
    fn copied(&mut self, node: usize, token: Token) {
        let hook = &self.process_mut(node).hooks[&token];
        let Call::CatchUp { partition, uid, epoch, leader, lapses, .. } = hook.call.clone() else { return };
        let from = hook.copies_from;
        let source = index(&leader);
        let boot = self.nodes[source].process.as_ref().map(|process| process.boot);
        if boot != from {
            return self.tell_hook(POLL, node, token, HookEvent::Ready);
        }
        if !self.is_awake(source) || !self.reach(node, source) {
            return self.tell_hook(POLL, node, token, HookEvent::Copied);
        }
        if !self.attach(source, node, partition, epoch, (uid, lapses)) {
            return self.tell_hook(POLL, node, token, HookEvent::Ready);
        }
        let copy = self.nodes[source].disk.places.get(&partition).map(|place| place.writes.clone());
        let Some(place) = self.nodes[node].disk.places.get_mut(&partition) else { return };
        if place.uid == uid {
            // What this leader sent here itself may not have reached its own place yet.
            place.writes.retain(|_, under| *under == epoch);
            place.writes.extend(copy.unwrap_or_default());
        }
        self.process_mut(node).copied.insert((partition, uid));
        self.hook_ends(node, token, Outcome::Done);
    }
}
