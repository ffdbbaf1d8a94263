// Package agreement is the session key agreement: who is in a session, which keys they send under, and the code
// that people compare. It is a state machine over bytes. It opens no socket and reads no clock: time comes in as
// [Millis], messages come in and go out as byte slices, and everything it wants done is a list of [Effect].
//
// # Parties
//
// S is the room device: exactly one, the sequencer. The others are members with the roles therapist, patient and
// guest. The hub relays every message to the other members of the session; it, the SFU and the network are the
// attacker. A session is (clinic[32], sid[16]); clinic is the SHA-256 of the first owner root's payload.
//
// What follows for hub, SFU and network: they cannot read, cannot add a member, cannot imitate one, cannot keep a
// removed member for longer than 15 s, and match two codes with at most 2^-40 (pictures: 1 in 15,249,024) per
// visible try. Not promised: a page whose code was changed by its server; a member who, together with the SFU,
// imitates another member to a third (frame keys are symmetric); denial of service.
//
// # Notation
//
// Integers are big-endian. || is concatenation, lp(x) = u32(len x) || x, H(label, x...) = SHA-256(lp(label) ||
// lp(x1) || lp(x2) ...). A single integer as an argument of H is its fixed-width encoding. Labels are ASCII. What is
// signed and hashed are the bytes as received. Unknown label, wrong length and trailing bytes are refused.
//
// # Suite
//
// Fixed by the labels' version, never negotiated: HPKE base mode with X-Wing (0x647a), HKDF-SHA-256 and AES-256-GCM
// (RFC 9180, draft-connolly-cfrg-xwing-kem), wire form enc[1120] || ciphertext || tag[16], aad empty; Ed25519
// (RFC 8032); SHA-256. Tink's NoPrefix variants on this side.
//
// # Document
//
// Fresh keys, and so a new document, per session and per page load.
//
//	doc = lp("alcove/doc/v1") || clinic[32] || sid[16] || salt[32] || u8 role || lp(kemPub[1216]) || sigPub[32] || lp(name)
//	D   = H("alcove/dochash/v1", doc)
//	eid = unpadded base64url(D[0:16])            // LiveKit identity
//
// role: 1 device, 2 therapist, 3 patient, 4 guest. name: at most 64 bytes of valid UTF-8, none of these code points:
// U+0000–001F, U+007F–009F, U+200E, U+200F, U+2028–202E, U+2066–2069, U+FEFF. kemPub is an encoded X-Wing key.
//
// # Proof
//
//	proof = u8 kind || u8 level || lp(body)                                        // body at most 16,384 bytes
//
//	kind 1 device   level 3  body = lp(SPKI, DER) || lp(signature, DER): ECDSA P-256 with SHA-256 over the message
//	                         lp("alcove/proof-device/v1") || lp(D) || lp(K), so that the signed digest is
//	                         H("alcove/proof-device/v1", D, K). SPKI is the 91-byte form with the uncompressed point.
//	kind 2 passkey  level 3  challenge H("alcove/proof-passkey/v1", D, dch); body belongs to the verifier
//	kind 3 OIDC     level 2  nonce = unpadded base64url(H("alcove/proof-oidc/v1", D, dch)); body belongs to the verifier
//	kind 4 hub      level 1  body empty: the server's word and nothing more
//
// A document of role device carries kind 1, every other role one of the other kinds. The level stands in the
// transcript. S verifies every proof to its full level; every member verifies the device's; other proofs a member
// verifies as far as it can ([Claim], [Member.Verified]). A kind without a verifier is refused by S.
//
// # Messages
//
// A message is
//
//	lp(label) || sid[16] || u32 e || from D[32] || body || sig[64]
//
// signed by the Ed25519 key in from's document over everything before sig, at most 65,536 bytes in all.
//
//	label                  body
//	alcove/propose/v1      prevT[32] || u8 n || D_1[32] ... D_n[32] || u8 m || admit_1 ... admit_m || u32 flags
//	alcove/commit/v1       P[32] || c[32]
//	alcove/reveal/v1       P[32] || K[32] || lp(doc) || lp(proof) || nonce[32]
//	alcove/keys/v1         T[32] || u32 gen || u8 idx || secretHash[32] || for each j != i, D_j ascending: D_j[32] || lp(sealed_j)
//	alcove/ready/v1        T[32] || u32 gen_1 ... u32 gen_n        (n from T's list, D ascending)
//	alcove/alive/v1        T[32] || u64 n || u64 time
//	alcove/challenge/v1    D[32] || dch[32] || u64 expiry          (e = 0; expiry on S's clock, ms, opaque to others)
//	alcove/end/v1          u8 reason                               (e of the sender's T, or 0)
//
// A statement carries no epoch and no sender; it names its signer behind the signed bytes:
//
//	alcove/admit/v1        lp(label) || sid[16] || prevT[32] || D[32] || u8 role || u8 local       || signer D[32] || sig[64]
//	alcove/remove/v1       lp(label) || sid[16] || prevT[32] || D[32] || u8 role || u8 local       || signer D[32] || sig[64]
//	alcove/check/v1        lp(label) || sid[16] || T[32]                                           || signer D[32] || sig[64]
//	alcove/compared/v1     lp(label) || sid[16] || T[32] || D[32]                                  || signer D[32] || sig[64]
//	alcove/agree/v1        lp(label) || sid[16] || H("alcove/admit/v1", admit)[32] || u8 answer    || signer D[32] || sig[64]
//
// sig covers the bytes before signer D. In agree, admit is the statement up to, not including, its signer D; answer
// is 1 or 0. Statements travel alone (from a member to S and everybody) and admits also inside propose. local is 1
// only when S signs for a touch in the room, role is the document's role of D.
//
// # Round
//
// A round runs at start, join, leave, removal and for a comparison.
//
//  1. propose, by S. e is greater than every e that S has proposed before. The D are strictly ascending, 2 to 5, S is
//     one of them. prevT is S's last T, for the first round T0 = H("alcove/transcript0/v1", clinic, sid). admits are
//     strictly ascending by D, each for a D of the list, with the proposal's prevT; every D that is not in prevT's
//     list has one, except S. flags: bit 0 check (a comparison was asked for), all others 0.
//     P = H("alcove/propose/v1", message without sig).
//  2. commit, by each: c_i = H("alcove/commit/v1", P, D_i, nonce_i), nonce_i 32 random bytes, fresh in every round.
//  3. With all n commits, and only then: K = H("alcove/commitset/v1", P, c_1, ..., c_n), D ascending. reveal, by each.
//     A second, different commit of one D fails. With two members a member sends commit and reveal together.
//  4. With all n reveals each checks, for every i: D_i is the hash of doc_i; c_i; K equal to its own; clinic and sid;
//     role device exactly for S; role equal to the admit's; the proof; level ≥ the clinic's minimum for the role; all
//     signatures, those of propose, commits and admits included; D, sigPub and kemPub pairwise distinct.
//  5. T_e = H("alcove/transcript/v1", prevT, P, K, nonce_1, ..., nonce_n, level_1, ..., level_n), D ascending, each
//     level one byte.
//
// An admit is signed by S with local = 1, any role but device; or by a therapist who is in the list and in prevT's
// list, with local = 0; or by S with local = 0 for a therapist into a list of exactly two (the therapist's sign-in
// is then the permission). In the first round (prevT = T0) n is 2.
//
// Order and loss. Messages of known documents are checked at once and dropped if the signature is wrong. A message
// that cannot be judged yet is kept: unknown P, K not complete, e above the running or current one (at most 64
// messages and 256 KiB, oldest dropped first). A newcomer takes the proposal that lists its D, with prevT as
// proposed; a later one replaces it if its e is greater or its sender another. A member takes a proposal only with a
// valid signature of S, an e above every e it took, and prevT equal to its own T; a different prevT fails, but waits
// while a round is running or T_e not yet in force. A member who is not in S's valid proposal has been removed.
//
// T_e comes into force at S when its round is complete, and S sends alive{T_e} and keys at once; at a member when its
// round is complete and it holds a valid alive{T_e}. Until then the old T is in force. So nobody moves on to a T that
// S has not reached, and a new proposal over the old T simply takes the place of the unfinished round.
//
// Silence. S waits 10 s for commits after propose, then 10 s for reveals, then 10 s for the first keys{T_e}; after
// that it proposes again without the silent ones (time without S's own connection does not count). A member
// forgets an unfinished round after 30 s. A round that this end revealed in, or in which it holds all commits, and
// that does not come into force, is a failed one: three of them within 10 minutes end the session (reason guesses).
// S runs one round at a time; the next one starts when all have sent keys{T_e}. When only S is left no T is in force,
// and the next round goes on from the last. Pending joins and leaves collapse
// into it. A removal cancels the running round and does not wait.
//
// A wrong value in a validly signed message ends the session at that end ([Failed]); it sends end{reason}, and who
// receives a valid end with a failure reason (≥ 32) from a member of its T or running round fails as well. end with
// a smaller reason counts only from S.
//
// # Keys
//
// When T_e is in force each i: gen_i += 1 (first 1), s_i = 32 random bytes, and sends keys with
//
//	idx = gen mod 16, secretHash = H("alcove/secret/v1", s_i)
//	sealed_j = HPKE.Seal(kemPub_j, info = H("alcove/seal/v1", T_e, D_i, D_j), aad = "", pt = u32 gen || s_i)
//
// j takes it when T is in force, gen > every gen of i, idx right, the list of D exactly the others, gen and hash of
// the opened plaintext equal, and the hash not seen before in this session (its own included: no reflection).
// An earlier gen is dropped; the same gen in other bytes, or any other wrong value, fails. After every change j sends
// ready with the highest gen that it has of each member under this T (0 none, its own latest for itself); a receiver
// keeps the highest of each entry. At most 4,096 secrets in one session. "j is ready for gen g" means: the highest entry for this end in j's readies is ≥ g.
//
// Key of frames: HKDF-SHA-256(s_i, salt "LKFrameEncryptionKey", info 128 zero bytes), 16 bytes. Key of data messages:
// HKDF-SHA-256(s_i, salt "alcove/data/v1", info empty), 32 bytes, AAD = H("alcove/data/v1", T, D_from, u32 gen, u64 seq),
// T being the one the key was announced under.
//
// Switching. Join: the new key is used when all others are ready for it, at latest 2 s after own keys; receive keys
// of older T are destroyed 2 s after that. Leave or removal (a valid remove, or a proposal without a current member):
// sending stops, and all receive keys are destroyed, at once; the new key is used as soon as it is sealed. Rotation
// (10 minutes, or asked for at 2^17 frames): same T, gen + 1, keys, switched like a join; a receiver destroys the
// sender's older keys 4 s after the newer one came (2 s after the latest possible switch). Keys first, then the
// switch: a frame that a browser cannot open costs it 3 s of picture. [KeyFrame] says who just became able to read.
//
// Nobody sends without a T in force, at least one other member ready for the key in use, and a fresh alive.
//
// # Alive
//
// S signs alive{T, n, time} at once when T comes into force and every 5 s; n rises strictly over the session from 1, time is
// S's clock in ms and never falls, both are below 2^53. A member stops sending when the newest alive is older than 15 s. Its age is bounded without
// trusting the relay: the first alive{T} cannot have been made before this end sent its reveal of the round, at
// local time a, so that for the newest alive, made at S's time_newest,
//
//	age(now) ≤ (now − a) − (time_newest − time_first)
//
// and a relay that hoards them gains nothing. If the right side is below 0 the clocks disagree: a is moved so that
// it is 0. After a join the lease of the old T runs on until alive{T_e} has come; after a removal S signs none for the old T.
//
// remove is signed by S, by a therapist member, or by D itself (leaving). Its prevT is the signer's T; the leaver's
// own is taken with any, a therapist's and S's with the T in force or the one before. A D that was removed never comes back.
//
// # Comparing
//
//	code     = first 40 bits of H("alcove/code/v1", T), 8 letters 0123456789ABCDEFGHJKMNPQRSTVWXYZ, XXXX-XXXX
//	x        = first 64 bits of H("alcove/pictures/v1", T) mod 15,249,024 (64·63·62·61)
//	pictures = x mod 64 in the list, then (x div 64) mod 63 in the list without the first, then (x div 4032) mod 62,
//	           then x div 249,984, each in what is left, in the list's order ([Pictures])
//	digits   = x as eight decimal digits, "NNNN NNNN"
//
// V is the set of D that this end has compared. MarkEqual puts all D of T into V; a therapist's end then signs
// compared{T, D} for each. Others take D over when the signer is a therapist of their T and in their V (now or
// later within that T). A therapist's check{T} makes S run a fresh round with flag check.
//
// # Guests
//
// A guest who is admitted by a therapist while a patient is a member is proposed by S only after a patient member's
// agree with answer 1, or a touch in the room; with [GuestAnnounce] after 15 s without an answer 0.
//
// testdata/vectors.json holds every formula and two whole rounds for the port in provisioning/web/src/agreement.
package agreement
