//! `key rotate` and `key refresh`: a new master key that seals what comes from now on, and slots for the ring that has it.
//!
//! The order keeps data from being sealed with a key that nobody can get at: the slots of people are in all places, read back and opened, before
//! this machine's; the old ones go last. A run that was cut off leaves slots of both rings, and the next one goes on with the newer
//! (`docs/decisions/keys.md`).

mod machine;
mod plan;

use std::path::PathBuf;

use clap::Args;
use holdfast_store::copy;
use holdfast_store::id::SlotId;
use holdfast_store::seal::keys::KeyRing;
use holdfast_store::seal::sheet::{RecoverySheet, words_of};
use holdfast_store::seal::slots::{Secret, SlotKind};
use holdfast_store::seal::writer::OwnerKey;
use holdfast_store::store::{Store, StoreLock};
use serde::Serialize;
use zeroize::Zeroizing;

use super::owner::{self, Act};
use super::places::{Needed, Places};
use super::{KeyKind, default_label, in_vaults, ring};
use crate::commands::Context;
use crate::create::new_slot;
use crate::open::{Bounds, open_as_ever, open_unlocked, secret_of, words_of as words_typed};
use crate::outcome::{Failure, Kind};
use crate::sheet::SheetFile;
use crate::terminal::text;
use crate::writers;
use machine::{MachineFiles, replace};
use plan::{Plan, Survey, Target};

/// How to rotate.
#[derive(Debug, Args)]
pub struct RotateArgs {
    /// Remove the slots whose passphrase, words or key is not at hand; without it nothing is done if there are any
    #[arg(long)]
    drop_others: bool,
    /// Write the new recovery sheet to a new file instead of the terminal: a page with a QR code if its name ends with .pdf, else text
    #[arg(long, value_name = "FILE")]
    sheet: Option<PathBuf>,
}

/// Something that opens slots.
pub(super) struct AtHand {
    /// What it is.
    pub secret: Secret,
    /// Whether it is this machine's key in a file of ours, which is replaced.
    pub in_file: bool,
    /// What a person gave, who is told if it opens nothing.
    pub typed: bool,
}

/// A new slot in the place of another.
#[derive(Debug, Serialize)]
struct Remade {
    id: String,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces: Option<String>,
}

/// What is printed with `--json`.
#[derive(Serialize)]
struct RotatedLine {
    message_type: &'static str,
    generation: u32,
    /// Whether it was made by this run, and not by one that was cut off or by another machine.
    new_generation: bool,
    slots: Vec<Remade>,
    removed: Vec<String>,
}

/// The words of the new sheet with `--json`, before the slot that they open is there.
#[derive(Serialize)]
struct SheetLine<'a> {
    message_type: &'static str,
    id: String,
    recovery_key: &'a str,
}

/// Makes a new generation, or ends what a run began that was cut off.
pub fn rotate(context: &Context<'_>, args: &RotateArgs) -> Result<(), Failure> {
    let mut work = Work::begin(context)?;
    let survey = work.survey()?;
    let mut plan = survey.plan(Target::Rotate, context.terminal.clock().now().seconds)?;
    work.give_an_owner(&survey, &mut plan);
    work.refuse_others(&survey, &plan, args.drop_others)?;
    let with_words = work.at_hand.iter().any(|held| held.secret.kind() == SlotKind::Recovery);
    // Before anything is made: a sheet that cannot be written ends it.
    if with_words && args.sheet.is_some() {
        return Err(Failure::usage(
            "--sheet is for a new sheet, and the words that were given stay as they are",
        )
        .hint("give no words for a new sheet, or no --sheet"));
    }
    let file = args.sheet.as_deref().map(SheetFile::create).transpose()?;
    if !with_words {
        work.new_sheet(&plan.ring, file)?;
    }
    work.remake_those_of_people(&survey, &plan)?;
    work.copy_kept(&survey, &plan)?;
    work.remake_that_of_machine(&survey, &plan)?;
    work.remove_old(&survey, &plan)?;
    writers::admit(context, work.places.store().id(), &plan.ring, &context.settings.host);
    work.tell(&plan, "key_rotated")
}

/// Brings the ring here that another machine made: into this machine's store alone, for a vault may be one that it only reads.
pub fn refresh(context: &Context<'_>) -> Result<(), Failure> {
    let mut work = Work::begin(context)?;
    let survey = work.survey()?;
    let plan = survey.plan(Target::Refresh, context.terminal.clock().now().seconds)?;
    for slot in plan.keep.iter().map(|at| &survey.slots[*at]).filter(|slot| slot.is_wanted_everywhere()) {
        work.places.put_here(&slot.id, &slot.bytes)?;
    }
    // Those of people first: what this machine seals with its new slot somebody must be able to open.
    let (of_people, of_machine): (Vec<_>, Vec<_>) =
        plan.remake.iter().map(|at| &survey.slots[*at]).partition(|slot| slot.is_of_people());
    for slot in of_people.into_iter().chain(of_machine) {
        let (Some(opened), true) = (&slot.opened, slot.in_staging || slot.is_of_people()) else { continue };
        let secret = &work.at_hand[opened.by].secret;
        let (id, bytes) = work.sealed(&plan.ring, secret, &opened.label)?;
        work.places.put_here(&id, &bytes)?;
        work.note(id, secret.kind(), Some(slot.id));
    }
    let whole = work.whole(&survey, &plan);
    for at in plan.replaced.iter().chain(&plan.gone) {
        if survey.slots[*at].in_staging {
            work.places.remove_here(&work.lock, &survey.slots[*at].id, &whole)?;
            work.removed.push(survey.slots[*at].id);
        }
    }
    writers::admit(context, work.places.store().id(), &plan.ring, &context.settings.host);
    work.learn(&plan.ring)?;
    work.tell(&plan, "key_refreshed")
}

/// A rotation under way, which has the store.
struct Work<'a> {
    context: &'a Context<'a>,
    at_hand: Vec<AtHand>,
    files: MachineFiles,
    places: Places,
    lock: StoreLock,
    now: i64,
    made: Vec<Remade>,
    removed: Vec<SlotId>,
}

impl<'a> Work<'a> {
    /// Asks for what is needed first: nobody is kept from the store while somebody looks for a piece of paper.
    fn begin(context: &'a Context<'a>) -> Result<Self, Failure> {
        let head = Store::head(context.settings.store()?)?;
        let files = MachineFiles::of(context, &head.vault);
        let mut at_hand = files.at_hand(context, &head.vault);
        at_hand.extend(typed(context)?);
        let opened = at_hand.iter().find_map(|held| ring::open(&head, &held.secret).ok());
        // None of them: whatever opens the store for every verb says why not.
        let opened = opened.map_or_else(|| open_as_ever(context, &head, ring::open), Ok)?;
        let places = Places::open(context, &head, &opened.ring)?;
        let lock = places.store().lock()?;
        let now = context.terminal.clock().now().seconds;
        let (made, removed) = (Vec::new(), Vec::new());
        Ok(Self { context, at_hand, files, places, lock, now, made, removed })
    }

    /// What lies in all places, now that nobody else changes the store's.
    fn survey(&self) -> Result<Survey, Failure> {
        let store = self.places.store();
        let mut survey = Survey::of(&self.places.heads_now()?, store.id(), &self.at_hand)?;
        survey.settle_owner(store.writer().map(|writer| &writer.admission().owner))?;
        for held in self.at_hand.iter().enumerate().filter(|(_, held)| held.typed) {
            if !survey.slots.iter().any(|slot| slot.opened.as_ref().is_some_and(|o| o.by == held.0)) {
                let what = format!("the {} that was given opens no slot", held.1.secret.kind());
                return Err(Failure::new(Kind::WrongKey, what)
                    .hint("nothing was changed; give the right one, or none"));
            }
        }
        Ok(survey)
    }

    /// A store of before gets an owner while its slots are made anew, by a person who gave what opens one. Of one that has an owner whose key is
    /// not at hand, that is told.
    fn give_an_owner(&self, survey: &Survey, plan: &mut Plan) {
        if plan.ring.owner().is_some() {
            return;
        }
        let is_owned = survey.slots.iter().any(|slot| slot.has_owner);
        match is_owned || self.places.store().owner().is_some() {
            true => self.context.terminal.warn(
                "what is at hand does not have the key of the store's owner: the new slots admit no machine; `holdfast key own` with what has it \
                 puts that right, and `holdfast key own --new` makes another owner if nobody has it any more",
            ),
            false if plan.is_new && self.at_hand.iter().any(|held| held.typed) => {
                plan.ring = plan.ring.clone().owned_by(OwnerKey::generate());
            }
            false => {}
        }
    }

    /// Names what would open nothing any more; only who agrees goes on.
    fn refuse_others(&self, survey: &Survey, plan: &Plan, agreed: bool) -> Result<(), Failure> {
        let terminal = self.context.terminal;
        for slot in plan.others.iter().map(|at| &survey.slots[*at]) {
            let kind = slot.kind.map_or("damaged", |kind| KeyKind::from(kind).word());
            let made = text::local_time(slot.created(), &jiff::tz::TimeZone::system());
            terminal.warn(&format!(
                "slot {} ({kind}, made {made}) is not at hand and opens nothing afterwards",
                slot.id
            ));
        }
        if plan.others.is_empty() {
            return Ok(());
        }
        if agreed {
            let given = self.at_hand.iter().filter(|held| held.typed).map(|held| &held.secret);
            return owner::agrees_by(self.context, self.places.store().dir(), Act::DropKeys, given);
        }
        let what = text::count(plan.others.len() as u64, "slot");
        Err(Failure::failed(format!("{what} would open nothing any more; nothing was changed")).hint(
            "give what opens them (HOLDFAST_PASSWORD_FILE, HOLDFAST_RECOVERY_KEY_FILE, or at the terminal), or agree with --drop-others: \
             other machines and people then need `holdfast key refresh` or a new slot",
        ))
    }

    fn sealed(&self, ring: &KeyRing, secret: &Secret, label: &str) -> Result<(SlotId, Vec<u8>), Failure> {
        new_slot(self.context, self.places.store().id(), ring, secret, label, self.now)
    }

    fn note(&mut self, id: SlotId, kind: SlotKind, replaces: Option<SlotId>) {
        let kind = KeyKind::from(kind).word();
        self.made.push(Remade { id: id.hex(), kind, replaces: replaces.map(|slot| slot.hex()) });
    }

    /// The sheet is handed out before its slot is anywhere: a slot whose words nobody saw could be all that opens the new ring.
    fn new_sheet(&mut self, ring: &KeyRing, file: Option<SheetFile<'_>>) -> Result<(), Failure> {
        let secret = Secret::new_recovery();
        let label = default_label(self.context, KeyKind::Recovery);
        let (id, bytes) = self.sealed(ring, &secret, &label)?;
        let Secret::Recovery(key) = &secret else { return Ok(()) };
        let (vault, addresses) = (*self.places.store().id(), self.places.addresses());
        let sheet = RecoverySheet { vault, addresses, key: key.clone(), created: self.now, slot: id };
        self.hand_out(&sheet, file)?;
        self.places.add_to_stay(&id, &bytes, &secret).map_err(|failure| unfinished(failure, &id))?;
        self.note(id, SlotKind::Recovery, None);
        Ok(())
    }

    fn hand_out(&self, sheet: &RecoverySheet, file: Option<SheetFile<'_>>) -> Result<(), Failure> {
        let terminal = self.context.terminal;
        match file {
            Some(file) => {
                let path = file.path();
                file.write(sheet)?;
                // It is there: that nobody reads this is no reason to stop between a sheet and its slot.
                let _ = terminal.say(&format!("new recovery sheet written to {}", path.display()));
                Ok(())
            }
            None if terminal.json() => {
                let words = Zeroizing::new(words_of(&sheet.key).join(" "));
                let (message_type, id) = ("recovery_sheet", sheet.slot.hex());
                terminal.json_line(&SheetLine { message_type, id, recovery_key: &words })
            }
            None => terminal.line(&sheet.render()),
        }
    }

    fn remake_those_of_people(&mut self, survey: &Survey, plan: &Plan) -> Result<(), Failure> {
        for slot in plan.remake.iter().map(|at| &survey.slots[*at]).filter(|slot| slot.is_of_people()) {
            let Some(opened) = &slot.opened else { continue };
            let secret = &self.at_hand[opened.by].secret;
            let (id, bytes) = self.sealed(&plan.ring, secret, &opened.label)?;
            self.places.add_to_stay(&id, &bytes, secret)?;
            self.note(id, self.at_hand[opened.by].secret.kind(), Some(slot.id));
        }
        Ok(())
    }

    /// A run that was cut off may have put a slot into some places and not into all.
    fn copy_kept(&self, survey: &Survey, plan: &Plan) -> Result<(), Failure> {
        let kept = plan.keep.iter().map(|at| &survey.slots[*at]);
        kept.filter(|slot| slot.is_wanted_everywhere())
            .try_for_each(|slot| self.places.put(&slot.id, &slot.bytes))
    }

    /// Last of those that are made: from then on this machine seals with the new key, and all that people have opens it.
    fn remake_that_of_machine(&mut self, survey: &Survey, plan: &Plan) -> Result<(), Failure> {
        for slot in plan.remake.iter().map(|at| &survey.slots[*at]).filter(|slot| !slot.is_of_people()) {
            let Some(opened) = &slot.opened else { continue };
            let held = &self.at_hand[opened.by];
            let next = held.in_file.then(|| self.files.next(self.places.store().id())).transpose()?;
            let next = next.map(|key| key.secret());
            let secret = next.as_ref().unwrap_or(&held.secret);
            let (id, bytes) = self.sealed(&plan.ring, secret, &opened.label)?;
            self.places.add_to_stay(&id, &bytes, secret)?;
            self.note(id, SlotKind::Machine, Some(slot.id));
        }
        replace(&self.files)
    }

    /// Slots that have all generations of the new ring.
    fn whole(&self, survey: &Survey, plan: &Plan) -> Vec<SlotId> {
        let is_whole = |slot: &&plan::Found| {
            slot.opened.as_ref().is_some_and(|opened| opened.ring.has_all_of(&plan.ring))
        };
        let kept = plan.keep.iter().map(|at| &survey.slots[*at]).filter(is_whole).map(|slot| slot.id);
        let made = self.made.iter().filter_map(|made| SlotId::from_hex(&made.id));
        kept.chain(made).collect()
    }

    /// Not before every place shows every new slot.
    fn remove_old(&mut self, survey: &Survey, plan: &Plan) -> Result<(), Failure> {
        let new: Vec<String> = self.made.iter().map(|made| made.id.clone()).collect();
        for (place, head) in self.places.heads_now()? {
            if let Some(id) = new.iter().find(|id| !head.slots.iter().any(|(there, _)| there.hex() == **id)) {
                let what = format!("{place} does not show the new slot {id}; the old slots stay");
                return Err(Failure::failed(what).hint("the same command goes on where this one ended"));
            }
        }
        let whole = self.whole(survey, plan);
        for at in plan.replaced.iter().chain(&plan.others).chain(&plan.gone) {
            self.places.remove(&self.lock, &survey.slots[*at].id, Needed::By(&whole))?;
            self.removed.push(survey.slots[*at].id);
        }
        self.files.forget_old();
        Ok(())
    }

    /// Makes the catalog know what the old ring did not open.
    fn learn(&self, ring: &KeyRing) -> Result<(), Failure> {
        let (terminal, store) = (self.context.terminal, self.places.store());
        let store = open_unlocked(self.context, store.dir(), store.id(), ring, Bounds::default())?;
        for (no, address, transfer) in store.vaults() {
            if let Err(e) = copy::load_catalog(&store, *no, transfer, &*terminal.monitor_of_opening()) {
                terminal
                    .warn(&format!("vault {address}: {e}; the same command looks again at what is there"));
            }
        }
        Ok(())
    }

    fn tell(&self, plan: &Plan, message_type: &'static str) -> Result<(), Failure> {
        let terminal = self.context.terminal;
        let generation = plan.ring.newest();
        if terminal.json() {
            let slots = self.made.iter().map(|made| Remade {
                id: made.id.clone(),
                kind: made.kind,
                replaces: made.replaces.clone(),
            });
            let removed = self.removed.iter().map(SlotId::hex).collect();
            let line = RotatedLine {
                message_type,
                generation,
                new_generation: plan.is_new,
                slots: slots.collect(),
                removed,
            };
            return terminal.json_line(&line);
        }
        for made in &self.made {
            let instead = made.replaces.as_ref().map_or(String::new(), |old| format!(" instead of {old}"));
            terminal.say(&format!("{} slot {}{instead}", made.kind, made.id))?;
        }
        for gone in
            self.removed.iter().filter(|id| !self.made.iter().any(|made| made.replaces == Some(id.hex())))
        {
            terminal.say(&format!("slot {gone} removed"))?;
        }
        let done = match (plan.is_new, message_type) {
            (true, _) => format!(
                "new data is sealed with key generation {generation} from now on{}",
                in_vaults(&self.places)
            ),
            (false, "key_rotated") => format!(
                "a rotation to key generation {generation} that had begun is complete{}; the same command makes another one",
                in_vaults(&self.places)
            ),
            (false, _) if self.made.is_empty() => format!("the keys are up to date: generation {generation}"),
            (false, _) => format!("this machine has key generation {generation} now"),
        };
        terminal.say(&done)?;
        match self.made.is_empty() {
            true => Ok(()),
            false => terminal.say("what runs already goes on with the old ring: restart mounts, so that they can read new points"),
        }
    }
}

/// Of a sheet that was handed out and whose slot is perhaps in some places and not in all.
fn unfinished(failure: Failure, id: &SlotId) -> Failure {
    let hint = format!(
        "keep the old recovery sheet, and the new one of slot {id}: the same command goes on if it is given the new one's words \
         (HOLDFAST_RECOVERY_KEY_FILE); if those open no slot, destroy it, and give none"
    );
    failure.hint(hint)
}

/// What people have at hand: named, or typed where somebody is there to type.
pub(super) fn typed(context: &Context<'_>) -> Result<Vec<AtHand>, Failure> {
    let secrets = &context.settings.secrets;
    let given = |secret| AtHand { secret, in_file: false, typed: true };
    let mut all = Vec::new();
    if let Some(text) = secrets.passphrase_at_hand(context.terminal)? {
        all.push(given(secret_of(&text)?));
    }
    if !all.iter().any(|held| held.secret.kind() == SlotKind::Recovery) {
        let words = secrets.words_at_hand(context.terminal)?;
        all.extend(words.map(|words| words_typed(&words).map(given)).transpose()?);
    }
    Ok(all)
}
