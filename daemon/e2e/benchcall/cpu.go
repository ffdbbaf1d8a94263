package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"

	"github.com/google/pprof/profile"
)

// encryption are the functions whose CPU time is the encryption's, with all that they call.
var encryption = []string{"/daemon/e2ee.(*Sender).Encrypt", "/daemon/e2ee.(*Receiver).Decrypt"}

type discard struct{}

func (discard) Frame(string, string, []byte, uint32) {}

// measureCPU profiles a call whose room runs in this process, which does nothing else meanwhile.
func measureCPU(ctx context.Context, c config, r *report) error {
	k, err := newClinic(ctx, c, discard{})
	if err != nil {
		return err
	}
	defer k.Close()
	if err := k.newSession(ctx, "therapist:"+viewer); err != nil {
		return err
	}
	p, err := k.knock(ctx, k.viewers, viewer, "camera", "microphone")
	if err != nil {
		return err
	}
	for _, press := range [][]string{{"admit"}, {"start", "--when-admitted"}} {
		if _, err := k.Press(ctx, press...); err != nil {
			return err
		}
	}
	if _, err := picture(p); err != nil {
		return err
	}
	before, err := k.arrived(ctx)
	if err != nil {
		return err
	}
	time.Sleep(warm)
	used, err := cpuTime()
	if err != nil {
		return err
	}
	var within, all int
	for range c.pairs {
		w, a, err := profiled(c.profile)
		if err != nil {
			return err
		}
		within, all = within+w, all+a
	}
	now, err := cpuTime()
	if err != nil {
		return err
	}
	after, err := k.arrived(ctx)
	if err != nil {
		return err
	}
	if after <= before {
		return fmt.Errorf("nothing arrived from the page during the profiles")
	}
	if all == 0 {
		return errors.New("the profiles are empty")
	}
	share := float64(within) / float64(all)
	r.add(figure{
		name: "encryption_share_of_daemon_cpu", unit: "%", value: 100 * share, goal: 5, stretch: none,
		// The standard error of a share that was counted.
		spread: 100 * math.Sqrt(share*(1-share)/float64(all)), n: all,
		comparison: fmt.Sprintf("the daemon takes %.1f %% of a core; %d of %d samples are encryption's",
			100*(now-used).Seconds()/(float64(c.pairs)*c.profile.Seconds()), within, all),
	})
	return nil
}

// arrived is how many pictures the room has received from the page.
func (k *clinic) arrived(ctx context.Context) (uint64, error) {
	st, err := k.Status(ctx)
	if err != nil {
		return 0, err
	}
	if st.Session == nil || len(st.Session.People) != 1 {
		return 0, errors.New("the call is not running")
	}
	return st.Session.People[0].Received.VideoFrames, nil
}

// profiled runs the CPU profiler and returns encryption's samples and all samples.
func profiled(length time.Duration) (within, all int, err error) {
	var raw bytes.Buffer
	if err := pprof.StartCPUProfile(&raw); err != nil {
		return 0, 0, err
	}
	time.Sleep(length)
	pprof.StopCPUProfile()
	prof, err := profile.Parse(&raw)
	if err != nil {
		return 0, 0, fmt.Errorf("read profile: %w", err)
	}
	for _, s := range prof.Sample {
		n := int(s.Value[0]) // runtime/pprof: samples/count, cpu/nanoseconds
		all += n
		if inEncryption(s) {
			within += n
		}
	}
	return within, all, nil
}

// cpuTime is the user and system time of this process.
func cpuTime() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

func inEncryption(s *profile.Sample) bool {
	for _, l := range s.Location {
		for _, line := range l.Line {
			for _, name := range encryption {
				if line.Function != nil && strings.HasSuffix(line.Function.Name, name) {
					return true
				}
			}
		}
	}
	return false
}
