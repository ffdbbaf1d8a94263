package session

import "time"

// Clock is the time that a session keeps: everything it waits for is waited for here. It never goes back.
type Clock interface {
	Now() time.Time
	// NewTimer returns a timer that fires once, d from now.
	NewTimer(d time.Duration) Timer
}

// Timer is one of a Clock's. After Reset and Stop nothing older comes out of C.
type Timer interface {
	C() <-chan time.Time
	Reset(d time.Duration)
	Stop()
}

// machineClock is the time of the machine.
type machineClock struct{}

func (machineClock) Now() time.Time { return time.Now() }

func (machineClock) NewTimer(d time.Duration) Timer { return machineTimer{time.NewTimer(d)} }

type machineTimer struct{ t *time.Timer }

func (t machineTimer) C() <-chan time.Time   { return t.t.C }
func (t machineTimer) Reset(d time.Duration) { t.t.Reset(d) }
func (t machineTimer) Stop()                 { t.t.Stop() }
