//! Steps: what can happen, and how it is carried out.

use super::faults::End;
use super::limits::{CLIENTS, SUPPORT};
use super::message::{Kind, Message};
use super::state::{NONE, Verdict, World};

macro_rules! actions {
    ($($name:ident $weight:literal,)*) => {
        /// What can happen in a step.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Action {
            $($name,)*
        }

        impl Action {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name),*];

            /// How often each is drawn, relative to the others.
            pub(crate) const WEIGHTS: &'static [u16] = &[$($weight),*];
        }
    };
}

actions! {
    Deliver 800, Duplicate 60, Lose 15,
    Write 15, Retry 20, Stream 300, Commit 400, Sync 300, ReplyQuorum 10, ReplyAll 20,
    Shrink 10, Expand 150, Swap 150, Resend 10, HandOff 150, StopLeading 2, Compact 15,
    GiveUp 10, Resume 10, DeleteEarly 10,
    Ask 60, StartBarrier 40,
    Attach 20, Acknowledge 10, Checkpoint 20, TidyUp 200, AdoptNext 20, AdoptLatest 120,
    Decide 60, Revoke 2, Fence 1, Register 100, Place 4, Exclude 3, Remove 3, Aim 3, GiveUpAim 1,
    ReportStatus 60, ElectUnclean 60, ChangeController 3,
    CrashProcess 2, CrashPower 2, Start 60, Pause 2, Wake 20, Damage 10, FailSync 5, JumpWall 1,
    Pass 6,
}

/// How much time may pass in a step: round about a promise, since that is where clocks matter.
const UNITS: [u32; 8] = [1, 2, 5, 10, SUPPORT - 2, SUPPORT - 1, SUPPORT, SUPPORT];

impl Action {
    /// Whether only a model with a rule taken out takes it.
    pub(crate) fn is_wrong(self) -> bool {
        matches!(self, Self::GiveUp | Self::Resume | Self::DeleteEarly)
    }

    pub(crate) fn carries_message(self) -> bool {
        matches!(self, Self::Deliver | Self::Duplicate | Self::Lose)
    }
}

/// One step with all that decides what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) action: Action,
    pub(crate) partition: u8,
    pub(crate) node: u8,
    pub(crate) other: u8,
    pub(crate) choice: u8,
    pub(crate) message: Message,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It changed something, and was checked.
    Taken,
    /// A message that nobody takes any more is gone: no step, since nothing else changed.
    Dropped,
    /// It cannot be taken now.
    Refused,
}

impl World {
    /// Takes `step` if it can be taken, and checks what it touched.
    pub(crate) fn take_step(&mut self, step: &Step) -> Outcome {
        let outcome = if step.action.carries_message() {
            self.take_message_step(step)
        } else if self.act(step) {
            Outcome::Taken
        } else {
            Outcome::Refused
        };
        if self.verdict == Verdict::Fine {
            self.check();
        }
        outcome
    }

    fn take_message_step(&mut self, step: &Step) -> Outcome {
        let Some(at) = self.bag.find(&step.message) else { return Outcome::Refused };
        let message = self.bag.all()[at];
        if step.action == Action::Lose {
            self.bag.remove(at);
            return Outcome::Taken;
        }
        if message.kind == Kind::Support && !self.is_support_due(&message) {
            return Outcome::Refused;
        }
        if self.waits_for_wake(&message) {
            return Outcome::Refused;
        }
        if step.action == Action::Deliver {
            self.bag.remove(at);
        }
        match (self.handle(&message, step.choice), step.action) {
            (true, _) => Outcome::Taken,
            (false, Action::Deliver) => Outcome::Dropped,
            (false, _) => Outcome::Refused,
        }
    }

    /// What is sent to a paused node waits for it.
    fn waits_for_wake(&self, message: &Message) -> bool {
        message.to != NONE && self.nodes[usize::from(message.to)].is_paused
    }

    fn handle(&mut self, message: &Message, choice: u8) -> bool {
        match message.kind {
            Kind::Attach => self.handle_attach(message),
            Kind::Append => self.handle_append(message),
            Kind::Diverge => self.handle_diverge(message),
            Kind::Snapshot => self.handle_snapshot(message),
            Kind::Ack => self.handle_ack(message),
            Kind::Propose => self.handle_propose(message),
            Kind::Refuse => self.handle_refuse(message),
            Kind::Handoff => self.handle_handoff(message),
            Kind::Stop => self.handle_stop(message, usize::from(choice)),
            Kind::Ask => self.handle_ask(message),
            Kind::Support => self.handle_support(message),
            Kind::Barrier => self.handle_barrier(message),
            Kind::BarrierAck => self.handle_barrier_ack(message),
            Kind::Elect => self.handle_elect(message),
            Kind::Status => self.handle_status(message),
        }
    }

    fn act(&mut self, step: &Step) -> bool {
        let (partition, node) = (usize::from(step.partition), usize::from(step.node));
        let (other, choice) = (usize::from(step.other), usize::from(step.choice));
        let client = 1 + step.choice % CLIENTS;
        match step.action {
            Action::Deliver | Action::Duplicate | Action::Lose => false,
            Action::Write => self.write(node, partition, client, true),
            Action::Retry => self.write(node, partition, client, false),
            Action::Stream => self.stream(node, partition, other, step.choice),
            Action::Commit => self.commit(node, partition),
            Action::Sync => self.sync(node, partition),
            Action::ReplyQuorum => self.reply(node, partition, false, step.choice % 3),
            Action::ReplyAll => self.reply(node, partition, true, step.choice % 3),
            Action::Shrink => self.shrink(node, partition, other),
            Action::Expand => self.expand(node, partition, other),
            Action::Swap => self.swap(node, partition, other, choice % self.setting.nodes),
            Action::Resend => self.resend(node, partition),
            Action::HandOff => self.hand_off(node, partition),
            Action::StopLeading => self.stop_leading(node, partition),
            Action::Compact => self.compact(node, partition),
            Action::GiveUp => self.give_up(node, partition),
            Action::DeleteEarly => self.delete_early(node, partition),
            Action::Resume => self.resume(node, partition),
            Action::Ask => self.ask(node, partition),
            Action::StartBarrier => self.start_barrier(node, partition),
            Action::Attach => self.attach(node, partition),
            Action::Acknowledge => self.acknowledge(node, partition),
            Action::Checkpoint => self.checkpoint(node, partition),
            Action::TidyUp => self.tidy_up(node, partition),
            Action::AdoptNext => self.adopt_other(node, step),
            Action::AdoptLatest => self.adopt_latest(node, partition),
            Action::Decide => self.decide(partition, choice),
            Action::Revoke => self.revoke(partition, choice),
            Action::Fence => self.fence(node),
            Action::Register => self.register(node),
            Action::Place => self.place(partition, node),
            Action::Exclude => self.exclude(partition, node),
            Action::Remove => self.remove(partition, node),
            Action::Aim => self.aim(partition, step.node),
            Action::GiveUpAim => self.aim(partition, NONE),
            Action::ReportStatus => self.report_status(node, partition),
            Action::ElectUnclean => self.elect_unclean(partition, choice),
            Action::ChangeController => self.change_controller(),
            Action::CrashProcess => self.crash(node, End::Process, 0),
            Action::CrashPower => self.crash(node, End::Power, step.choice),
            Action::Start => self.start(node),
            Action::Pause => self.pause(node),
            Action::Wake => self.wake(node),
            Action::Damage => self.damage(node, partition, step.choice),
            Action::FailSync => self.fail_sync(node, partition),
            Action::JumpWall => self.jump_wall(node, step.choice % 8),
            Action::Pass => self.pass(UNITS[usize::from(step.choice & 7)]),
        }
    }

    fn only(&self, partition: usize) -> Option<usize> {
        Some(partition).filter(|_| !self.holds(super::Rule::AdoptAtOnce))
    }

    fn adopt_latest(&mut self, node: usize, partition: usize) -> bool {
        self.adopt(node, self.version, self.only(partition))
    }

    /// Adopts the next version, or, if nothing forbids it, an older one that a late controller showed.
    fn adopt_other(&mut self, node: usize, step: &Step) -> bool {
        let adopted = self.nodes[node].adopted;
        let is_back = !self.holds(super::Rule::AdoptForward) && step.choice & 1 == 1;
        let version = if is_back { adopted.saturating_sub(1).max(1) } else { adopted + 1 };
        self.adopt(node, version, self.only(usize::from(step.partition)))
    }
}
