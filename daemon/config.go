package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"gopkg.in/yaml.v3"
)

// Config is the file that a box is started with. It names places on this machine and nothing else: what a
// clinic decides (pictures, policy, people) comes in documents that the clinic has signed.
type Config struct {
	// StateDir holds keys, documents and the audit log; mode 0700, owned by the daemon's user.
	// Default /var/lib/alcove.
	StateDir string `yaml:"state_dir"`
	// RunDir holds the sockets; default /run/alcove.
	RunDir string `yaml:"run_dir"`
	// Claim is a claim file made by `alcovectl claim create`, read while the room is not enrolled.
	// Default <state_dir>/claim.json.
	Claim string `yaml:"claim"`
	// ControlUser owns the control socket (<run_dir>/control.sock): the screen's user, by name or number.
	// Default: the daemon's own user.
	ControlUser string `yaml:"control_user"`
	// Capture is the command that captures; it is started for a session and ended with it.
	// Default ["alcove-capture"].
	Capture []string `yaml:"capture"`
	// Metrics is the address of the Prometheus endpoint; default 127.0.0.1:9464. Empty: none.
	Metrics *string `yaml:"metrics"`
	// LogLevel is debug, info, warn or error; default info.
	LogLevel string `yaml:"log_level"`
}

// ReadConfig reads a configuration file. Unknown keys are refused, so that a typing error cannot hide.
func ReadConfig(path string) (Config, error) {
	var c Config
	raw, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	dec.KnownFields(true)
	if err := dec.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return c, fmt.Errorf("configuration %s: %w", path, err)
	}
	c.defaults()
	if _, err := c.level(); err != nil {
		return c, fmt.Errorf("configuration %s: %w", path, err)
	}
	return c, nil
}

func (c *Config) defaults() {
	set := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	set(&c.StateDir, "/var/lib/alcove")
	set(&c.RunDir, "/run/alcove")
	set(&c.Claim, filepath.Join(c.StateDir, "claim.json"))
	set(&c.LogLevel, "info")
	if len(c.Capture) == 0 {
		c.Capture = []string{"alcove-capture"}
	}
	if c.Metrics == nil {
		addr := "127.0.0.1:9464"
		c.Metrics = &addr
	}
}

func (c *Config) level() (slog.Level, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return l, fmt.Errorf("log_level %q: it is debug, info, warn or error", c.LogLevel)
	}
	return l, nil
}

// ControlSocket is where `alcoved room …` finds the daemon.
func (c *Config) ControlSocket() string { return filepath.Join(c.RunDir, "control.sock") }
