//! What happens, as it is drawn.

use l2lb::controller::resource;
use l2lb::world::Kind;
use proptest::prelude::*;

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Step {
    CreateLoadBalancer(u8, u8),
    EditLoadBalancer(u8, u16),
    DeleteLoadBalancer(u8),
    CreatePool(u8),
    GrowPool(u8),
    DeletePool(u8),
    AddNode(u8),
    RemoveNode(u8),
    SetReady(u8, bool),
    Cordon(u8, bool),
    Squat(u8),
    Unsquat(u8),
    Quota(bool),
    /// Admission refuses a kind of MetalLB's, or none any more.
    Deny(Option<Kind>),
    Tamper(u8),
    MetalLb,
    Collect,
    /// A watch brings some of its news,
    Deliver(Kind, u8),
    /// or every one does.
    DeliverAll,
    Relist(Kind),
    /// All is well for once: all news is heard, and so much of a plan written.
    Round(u8),
    /// A plan is made; whether the questions before it are answered.
    Plan(bool),
    Write(Fate),
    Answer,
    Land,
    /// Another controller begins; whether its lists are complete at once.
    Crash(bool),
    Pass(u8),
}

/// What becomes of a write.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    Answered,
    AnsweredLater,
    /// There is no answer,
    Lost(Course),
    /// or that the API server gave up.
    Overdue(Course),
    Unavailable,
}

/// What a write without an answer comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    Done,
    NotDone,
    DoneLater,
}

fn course() -> impl Strategy<Value = Course> {
    prop::sample::select(vec![Course::Done, Course::NotDone, Course::DoneLater])
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        12 => Just(Fate::Answered),
        4 => Just(Fate::AnsweredLater),
        2 => course().prop_map(Fate::Lost),
        2 => course().prop_map(Fate::Overdue),
        1 => Just(Fate::Unavailable),
    ]
}

fn kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(resource::KINDS.to_vec())
}

fn denied() -> impl Strategy<Value = Option<Kind>> {
    prop::sample::select(vec![
        None,
        Some(Kind::IpAddressPool),
        Some(Kind::L2Advertisement),
    ])
}

pub fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..4u8, 0..4u8).prop_map(|(a, b)| Step::CreateLoadBalancer(a, b)),
        1 => (0..4u8, 1..100u16).prop_map(|(a, b)| Step::EditLoadBalancer(a, b)),
        1 => (0..4u8).prop_map(Step::DeleteLoadBalancer),
        1 => (0..2u8).prop_map(Step::CreatePool),
        1 => (0..2u8).prop_map(Step::GrowPool),
        1 => (0..2u8).prop_map(Step::DeletePool),
        2 => (0..5u8).prop_map(Step::AddNode),
        1 => (0..5u8).prop_map(Step::RemoveNode),
        3 => (0..5u8, any::<bool>()).prop_map(|(n, r)| Step::SetReady(n, r)),
        2 => (0..5u8, any::<bool>()).prop_map(|(n, r)| Step::Cordon(n, r)),
        1 => (0..6u8).prop_map(Step::Squat),
        1 => (0..6u8).prop_map(Step::Unsquat),
        1 => any::<bool>().prop_map(Step::Quota),
        1 => denied().prop_map(Step::Deny),
        1 => (0..16u8).prop_map(Step::Tamper),
        3 => Just(Step::MetalLb),
        1 => Just(Step::Collect),
        12 => (kind(), 1..8u8).prop_map(|(k, n)| Step::Deliver(k, n)),
        3 => Just(Step::DeliverAll),
        1 => kind().prop_map(Step::Relist),
        4 => (0..16u8).prop_map(Step::Round),
        10 => any::<bool>().prop_map(Step::Plan),
        30 => fate().prop_map(Step::Write),
        4 => Just(Step::Answer),
        1 => Just(Step::Land),
        1 => any::<bool>().prop_map(Step::Crash),
        3 => (1..60u8).prop_map(Step::Pass),
    ]
}
