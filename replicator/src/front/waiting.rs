//! A request some of whose answers have to come from other members.

use super::mailbox::Completion;
use crate::core::{Reply, TicketId};

/// The answers so far, and what to do with them once they are complete.
#[derive(Debug)]
pub struct Waiting<F> {
    answers: Vec<Option<Reply>>,
    tickets: Vec<(TicketId, usize)>,
    finish: F,
}

impl<F> Waiting<F> {
    /// A request with answers that are there and answers that are not, in the order of its questions.
    pub fn new(answers: impl IntoIterator<Item = Result<Reply, TicketId>>, finish: F) -> Self {
        let mut tickets = Vec::new();
        let answers = answers
            .into_iter()
            .enumerate()
            .map(|(place, answer)| answer.map_err(|ticket| tickets.push((ticket, place))).ok())
            .collect();
        Self {
            answers,
            tickets,
            finish,
        }
    }

    /// The ticket it waits for; `None` when it is complete.
    pub fn ticket(&self) -> Option<TicketId> {
        self.tickets.first().map(|(ticket, _)| *ticket)
    }

    /// Takes an answer in. Answers to questions that were not asked here are left alone.
    pub fn answer(&mut self, completion: Completion) {
        let Some(place) = self
            .tickets
            .iter()
            .position(|(ticket, _)| *ticket == completion.ticket)
        else {
            return;
        };
        let (_, answer) = self.tickets.swap_remove(place);
        if let Some(slot) = self.answers.get_mut(answer) {
            *slot = Some(completion.reply);
        }
    }

    /// All answers in the order of the questions, and what to do with them.
    pub fn into_answers(self) -> (Vec<Reply>, F) {
        (
            self.answers
                .into_iter()
                .map(|answer| answer.unwrap_or(Reply::Nil))
                .collect(),
            self.finish,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_keep_the_order_of_the_questions() {
        let answers = [Err(TicketId(5)), Ok(Reply::Int(1)), Err(TicketId(6))];
        let mut waiting = Waiting::new(answers, ());
        for (ticket, number) in [(6, 2), (9, 9), (5, 0)] {
            assert!(waiting.ticket().is_some());
            waiting.answer(Completion {
                ticket: TicketId(ticket),
                reply: Reply::Int(number),
                observed: None,
            });
        }
        assert_eq!(waiting.ticket(), None);
        assert_eq!(
            waiting.into_answers().0,
            [Reply::Int(0), Reply::Int(1), Reply::Int(2)]
        );
    }
}
