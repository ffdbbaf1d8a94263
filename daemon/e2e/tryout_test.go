package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/alcove-room/alcove/daemon/e2e/browser"
	"github.com/alcove-room/alcove/daemon/e2e/stack"
)

// tryout is `make run` in somebody's terminal.
type tryout struct {
	cmd *exec.Cmd

	mu   sync.Mutex
	text bytes.Buffer
	done chan struct{} // closed at the end of its output
}

func startTryout(t *testing.T, dir string, port int) *tryout {
	t.Helper()
	r := &tryout{cmd: exec.Command(filepath.Join(root(t), "provisioning", "tryout", "run")), done: make(chan struct{})}
	r.cmd.Env = append(os.Environ(), "ALCOVE_TRYOUT_BUILD=no", "ALCOVE_TRYOUT_DIR="+dir, "ALCOVE_TRYOUT_PORT="+strconv.Itoa(port))
	// A terminal sends Ctrl-C to a whole process group; the test has to have one to send it to.
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out := must[io.ReadCloser](t)(r.cmd.StdoutPipe())
	r.cmd.Stderr = r.cmd.Stdout
	ok(t, r.cmd.Start())
	t.Cleanup(func() { _ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL) }) // gone already, when all is well
	go func() {
		defer close(r.done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			r.mu.Lock()
			fmt.Fprintln(&r.text, lines.Text())
			r.mu.Unlock()
		}
	}()
	return r
}

func (r *tryout) said() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// await waits until the script has printed what form finds, and returns it.
func (r *tryout) await(t *testing.T, limit time.Duration, form string) string {
	t.Helper()
	want := regexp.MustCompile(form)
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if m := want.FindStringSubmatch(r.said()); m != nil {
			return m[1]
		}
	}
	t.Fatalf("%s was not printed in %v:\n%s", form, limit, r.said())
	return ""
}

// below returns the processes that descend from pid.
func below(t *testing.T, pid int) (all []int) {
	t.Helper()
	tasks := must[[]string](t)(filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)))
	for _, task := range tasks {
		raw, _ := os.ReadFile(task) // a thread may have ended
		for _, f := range strings.Fields(string(raw)) {
			child := must[int](t)(strconv.Atoi(f))
			all = append(append(all, child), below(t, child)...)
		}
	}
	return all
}

// name is what a running process was started as; empty when it has ended.
func name(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if _, state, _ := strings.Cut(string(stat), ") "); err != nil || strings.HasPrefix(state, "Z") {
		return ""
	}
	line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // empty when it has just ended
	return strings.ReplaceAll(strings.TrimRight(string(line), "\x00"), "\x00", " ")
}

// TestTryout follows what `make run` prints, as somebody does who sees Alcove for the first time; with -full a second
// time, when the clinic is there already.
func TestTryout(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tryout")
	b := chromium(t, browser.Options{})
	// Seven ports in a row are looked for by the script; the first of the free ones is a good guess.
	port := must[[]int](t)(stack.FreePorts("127.0.0.1", 1))[0]
	for _, again := range []bool{false, true}[:map[bool]int{false: 1, true: 2}[*full]] {
		r := startTryout(t, dir, port)
		link := r.await(t, 60*time.Second, `(?m)^\s+(http://localhost:\d+/#\S+)$`)
		admit := r.await(t, 5*time.Second, `(?m)^\s+(\S+/alcoved room --socket \S+ admit)$`)
		begin := r.await(t, 5*time.Second, `(?m)^\s+(\S+/alcoved room --socket \S+ start)$`)
		p := enter(t, b, link)
		r.await(t, 10*time.Second, `(?m)^\S+\s+(Waiting.*Sam.*)$`)
		shell(t, admit)
		ok(t, p.Await(20*time.Second, "document.documentElement.dataset.screen === 'call'"))
		shell(t, begin)
		picture(t, p, 15*time.Second)
		heard(t, p)
		r.await(t, 15*time.Second, `(?m)^\S+\s+(from Sam.*)$`)
		if !again {
			screenshot(t, p, "tryout")
		}

		started := below(t, r.cmd.Process.Pid)
		var names []string
		for _, pid := range started {
			names = append(names, name(pid))
		}
		for _, program := range []string{"alcove-hub serve", "alcove-hub sfu", "alcoved serve", "alcove-capture"} {
			if !strings.Contains(strings.Join(names, "\n"), program) {
				t.Errorf("%s does not run among %q", program, names)
			}
		}
		r.end(t, started)
		ok(t, p.Await(15*time.Second, "document.documentElement.dataset.screen !== 'call' || document.body.innerText.includes('lost')"))
		if !again {
			screenshot(t, p, "tryout-ended")
		}
		p.Close()
	}
}

// end presses Ctrl-C and asserts that everything ends.
func (r *tryout) end(t *testing.T, started []int) {
	t.Helper()
	ok(t, syscall.Kill(-r.cmd.Process.Pid, syscall.SIGINT))
	select {
	case <-r.done:
	case <-time.After(30 * time.Second):
		t.Fatalf("Ctrl-C does not end it:\n%s", r.said())
	}
	if err := r.cmd.Wait(); err != nil {
		t.Errorf("after Ctrl-C: %v\n%s", err, r.said())
	}
	for _, pid := range started {
		if n := name(pid); n != "" {
			t.Errorf("process %d goes on: %s", pid, n)
		}
	}
	// The script's own sleep between two looks at the room may run on for its second.
	left := syscall.Kill(-r.cmd.Process.Pid, 0)
	for deadline := time.Now().Add(3 * time.Second); left == nil && time.Now().Before(deadline); {
		time.Sleep(100 * time.Millisecond)
		left = syscall.Kill(-r.cmd.Process.Pid, 0)
	}
	if !errors.Is(left, syscall.ESRCH) {
		t.Errorf("something is left in the process group: %v", left)
	}
	if strings.Contains(r.said(), "failed") {
		t.Errorf("it says that something failed:\n%s", r.said())
	}
}

// shell runs a line as somebody who copies it does.
func shell(t *testing.T, line string) {
	t.Helper()
	if out, err := exec.Command("bash", "-c", line).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
}
