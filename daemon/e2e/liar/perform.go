package liar

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/alcove-room/alcove/daemon/e2ee/agreement"
)

// Class is how a run ended.
type Class string

// The classes. Equal is the honest end: both ends show one code and the room may send.
const (
	Equal         Class = "equal"
	CodesDiffer   Class = "codes differ"
	RefusedByRoom Class = "refused by room"
	RefusedByPage Class = "refused by page"
	RefusedByBoth Class = "refused by both"
	StoppedInTime Class = "stopped in time"
)

// Outcome is what came of a run.
type Outcome struct {
	Class   Class
	Last    Seen
	Codes   []string // that both ends showed, at whatever time
	Ends    map[Way]string
	Arrived int // lies
	Bytes   int
	Held    int // secrets of honest ends that foreign endpoints came to hold, in sessions whose codes differ
	Took    time.Duration
}

const (
	settled = 15 * time.Second     // without any change: longer than a round waits for anybody
	longest = 70 * time.Second     // longer than anything in a session waits, rotation apart
	quiet   = 8 * time.Millisecond // without a word, at least
)

// ErrStuck says that the room does not do what it does without anybody's help.
var ErrStuck = errors.New("the room does not open the session")

// Perform lets the run's session take place.
func (c *Clinic) Perform(ctx context.Context, r *Run) (Outcome, error) {
	start := time.Now()
	r.began = c.clock.Now()
	if err := c.appear(r); err != nil {
		return Outcome{}, err
	}
	out, err := c.follow(ctx, r)
	if err != nil {
		return out, err
	}
	var digests []string
	if err := r.window.Eval("liar.digests()", &digests); err != nil {
		return out, err
	}
	if out.Arrived, out.Bytes, err = r.evidence(ctx, digests); err != nil {
		return out, err
	}
	r.mu.Lock()
	out.Ends = r.ends
	out.Held, err = r.innocent(out)
	if err == nil {
		err = r.teller.Judge(out)
	}
	r.mu.Unlock()
	out.Took = time.Since(start)
	return out, err
}

// appear shows the appointment to the room, and waits until it has opened the session.
func (c *Clinic) appear(r *Run) error {
	var err error
	for range 200 {
		if err = c.proxy.begin(r); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		return err
	}
	select {
	case <-r.opened:
	case <-time.After(5 * time.Second):
		return ErrStuck
	}
	// From now on it knows of none, so that a session which fails is not begun again behind the run's back.
	r.mu.Lock()
	room := r.room
	r.mu.Unlock()
	return send(room.end, Control{"t": "sessions", "sessions": []any{}})
}

// Finish clears up after a run.
func (c *Clinic) Finish(r *Run) error {
	close(r.over)
	defer c.proxy.end(r)
	if seen, _, err := c.room(); err == nil && seen.Open {
		_ = c.press("end", map[string]any{}) // it may end by itself meanwhile
	}
	for _, sid := range r.others {
		_ = c.cancel(sid)
	}
	_ = c.cancel(r.sid) // it has ended in the hub too, when the room ended it
	for range 500 {
		if seen, _, err := c.room(); err != nil || !seen.Open {
			return err
		}
		time.Sleep(4 * time.Millisecond)
	}
	return errors.New("the room does not end the session")
}

// follow presses admit for whoever waits, lets time leap when nobody speaks, and says how it ended.
func (c *Clinic) follow(ctx context.Context, r *Run) (Outcome, error) {
	f := &following{clinic: c, run: r, roomCodes: map[string]bool{}, pageCodes: map[string]bool{}}
	for ctx.Err() == nil {
		seen, over, err := f.step()
		if err != nil || over {
			return f.outcome(seen), err
		}
	}
	return Outcome{}, ctx.Err()
}

type following struct {
	clinic               *Clinic
	run                  *Run
	admitted             bool
	last                 Seen
	since                time.Duration // what had been leapt over when last became what it is, and the lie was told to its end
	leapt                time.Duration
	patience             time.Duration
	calm                 int // silent looks in a row
	roomCodes, pageCodes map[string]bool
}

func (f *following) step() (Seen, bool, error) {
	c, r := f.clinic, f.run
	seen := Seen{Leapt: f.leapt}
	room, waiting, err := c.room()
	if err != nil {
		return seen, false, err
	}
	seen.Room = room
	asked := time.Now()
	if err := r.window.Eval("liar.look()", &seen.Page); err != nil {
		return seen, false, err
	}
	// A machine that has much to do answers late, and everybody on it speaks late.
	f.patience = max(quiet, 3*time.Since(asked), f.patience*3/4)
	if room.Code != "" {
		f.roomCodes[room.Code] = true
	}
	if seen.Page.up() {
		f.pageCodes[seen.Page.Code] = true
	}
	for _, p := range waiting {
		if c.press("admit", map[string]any{"person": p.ID}) == nil {
			f.admitted = true
		}
	}
	r.mu.Lock()
	for _, x := range r.foreign {
		x.tick()
	}
	r.drain()
	done := r.teller.Step(seen)
	r.drain()
	r.mu.Unlock()
	if !seen.same(f.last) || !done {
		f.last, f.since = seen, f.leapt
	}
	if done && f.decided(seen) {
		return seen, true, nil
	}
	if !r.silent(seen.Page, f.patience) || !f.admitted && room.Open && f.leapt == 0 && f.waitsForKnock() {
		f.calm = 0
		time.Sleep(5 * time.Millisecond)
		return seen, false, nil
	}
	if f.calm++; f.calm < 2 { // look once more: what was seen is older than the silence
		return seen, false, nil
	}
	f.calm = 0
	if done && f.leapt-f.since >= settled || f.leapt > longest {
		return seen, true, nil
	}
	return seen, false, f.leap()
}

// waitsForKnock: whoever knocks does so by itself, without any time having to pass.
func (f *following) waitsForKnock() bool {
	return f.clinic.clock.Now().Sub(f.run.began) < 3*time.Second
}

func (f *following) leap() error {
	f.leapt += f.run.leap
	f.clinic.clock.Leap(f.run.leap)
	return f.run.window.Eval(fmt.Sprintf("liar.leap(%d, 3)", f.run.leap.Milliseconds()), nil)
}

// decided tells whether nothing can change any more.
func (f *following) decided(s Seen) bool {
	refused := !s.Room.Open || (f.admitted && s.Room.State == "open")
	return refused && s.Page.Screen == "notice" || f.run.class != "" || !f.run.Lie.Tells && s.Room.up() && s.Page.up()
}

func (f *following) outcome(s Seen) Outcome {
	o := Outcome{Last: s}
	for code := range f.roomCodes {
		if f.pageCodes[code] {
			o.Codes = append(o.Codes, code)
		}
	}
	room, page := s.Room.up(), s.Page.up()
	switch {
	case f.run.class != "":
		o.Class = f.run.class
	case s.Room.Open && s.Room.Code != "" && page && s.Room.Code != s.Page.Code:
		o.Class = CodesDiffer
	case room && page:
		o.Class = Equal
	case room:
		o.Class = RefusedByPage
	case page:
		o.Class = RefusedByRoom
	default:
		o.Class = RefusedByBoth
	}
	return o
}

// innocent holds for every run: where the codes were equal, nobody but those whom both ends list has a secret. It
// returns how many secrets foreign endpoints have where they were not.
func (r *Run) innocent(o Outcome) (held int, err error) {
	for _, f := range r.foreign {
		for _, t := range f.holds(r.roomD, r.pageD) {
			equal := slices.Contains(o.Codes, agreement.Code(t))
			if equal && !f.member {
				return held, fmt.Errorf("both ends showed %s, and a foreign endpoint has a secret of that session", agreement.Code(t))
			}
			if !equal {
				held++
			}
		}
	}
	return held, nil
}
