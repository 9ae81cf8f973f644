// Package transaction has people confirm payments: they read what is paid to whom, on their phone, and give back a code that is good for exactly that.
//
// # Record
//
// What an application wants to have confirmed is an [Order]. [Order.Normalize] refuses what cannot be displayed truthfully and writes the rest in one form; with an id, a nonce, the
// application and the payer it is a [Record], which never changes. [Record.Canonical] is its one form as JSON, and the SHA-256 of that is the context of the challenge: the ledger's keyed
// hash of the code covers it, so that a code is good for one record. docs/transactions.md has the form for those who check it elsewhere.
//
// # States
//
// pending → approved | refused | reported | expired | canceled | failed. Every change is one conditional statement, with its challenge, audit record and webhook event; a trigger refuses
// any other. What is over is stored as expired before anybody is told so. Page, API, token, webhook and audit therefore tell one outcome. Statements that end a transaction lock its
// challenge first, as an answer does.
//
// A code approves if it is the ledger's own, was sent to a phone that has been bound for a day, by a text that named amount, currency and payee, and comes with the same amount,
// currency and payees. Five wrong ones end the transaction; so does anything else that comes with the code. Backup codes, apps, remembered browsers and earlier codes cannot approve: only
// factors.Linked serve this purpose.
//
// # Three doors
//
// All three create, answer and end the same thing in the same way; they differ in who collects the code.
//
//   - REST ([DoorREST]): the application collects it. [Service.Create], then [Service.Approve] with an [Answer.Repeat] of what its own page showed. [Service.Get] to poll, one round trip.
//   - Page ([DoorPage]): step-up in a browser that is signed in, by authorization_details ([Details] reads them as an [Order]). [Request.Holder] is the session: no other can answer. The page
//     shows the [Transaction] that Get gives and nothing from the request, and tells Approve what it showed ([Answer.Page]) and what the session had proved ([Answer.Before]).
//     [Answer.Along] puts the session's event, or the grant, into the statement of the approval.
//   - CIBA ([DoorCIBA]): the application waits. [Request.Along] stores the auth_req_id with the transaction; the page, opened from the text or in a signed-in browser, is as above, with the
//     application as holder where there is no session.
//
// [Service.Refuse] and [Service.Report] are the other two buttons of the page; [Service.Cancel] is the application's.
//
// # Evidence
//
// An approval has a [Receipt]: a JWS with the record, its hash, what was shown, and what it rests on. [ReadReceipt] checks one off-line.
//
// Table: transactions. Records, and what was shown, are sealed there.
package transaction
