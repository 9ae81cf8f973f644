// Package sms carries codes to phones.
//
// A message is written to the outbox, table messages, in the very statement that decides to send it: what was
// acknowledged is sent, and what was rolled back is not. [Outbox] adds that part to the statement of whoever sends. From then on
// a [Worker] owns it: woken by NOTIFY, it claims what is due with FOR UPDATE SKIP LOCKED and a lease, lets [Routing] choose a vendor, stores one row in table
// legs for each call before it makes the call, and settles both afterwards. The leg's id is the idempotency key of the
// call and stays the same when an unknown outcome is tried once more.
//
// Vendors report what became of a leg by calling back. [Desk] authenticates such a call by the vendor's own driver, stores each report once and moves
// leg and message forwards only; bad news of a message whose challenge is still live sends it on another way, with the same code and as
// the same send. Replies are read for STOP, START and HELP.
//
// # What is checked
//
// Nothing is sent once its challenge has ended, its time has passed or it was canceled; nothing to a number that opted out, to a country that is not
// served, or while a breaker of its prefix or country is open. Which failure leads to what is decided by [Class] and [Reached] alone, never by a vendor's
// text. Number and text are sealed while they wait, and erased when nobody needs them: a copied table shows two digits of a number.
//
// # What is not
//
// The package knows neither users nor whether a code was right: it takes a text and a [Number]. It does not decide how often a number may be texted; package
// factors does that before anything is stored.
//
// Vendors stand behind [Vendor], one folder each. Tables: messages, legs, receipts, opt_outs, send_breakers.
package sms
