package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// Exit codes of `alcoved room …`.
const (
	exitRefused     = 1 // the room cannot do that now; the message says why
	exitUnreachable = 3 // no daemon answers on the socket
)

type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// ExitCode is the process's exit status for err.
func ExitCode(err error) int {
	var e *exitError
	if errors.As(err, &e) {
		return e.code
	}
	return 1
}

// RoomCommand is `alcoved room`: what can be pressed in the room, on the control socket.
func RoomCommand() *cobra.Command {
	var socket string
	var asJSON bool
	room := &cobra.Command{
		Use:   "room",
		Short: "Press what can be pressed in the room",
		Long: `Press what can be pressed in the room: who comes in, when camera and microphone turn on, and when it ends.
The commands speak to the daemon's control socket, which only the screen's user may open.`,
		Example: `  alcoved room status
  alcoved room admit "Dr Lee"
  alcoved room start`,
	}
	room.PersistentFlags().StringVar(&socket, "socket", "/run/alcove/control.sock", "control socket of the daemon")
	room.PersistentFlags().BoolVar(&asJSON, "json", false, "print the room's state as JSON")
	show := func(cmd *cobra.Command, method, path string, a action) error {
		s, err := press(cmd.Context(), socket, method, path, a)
		if err != nil {
			return err
		}
		return printStatus(cmd.OutOrStdout(), s, asJSON)
	}
	add := func(use, short string, args cobra.PositionalArgs, make func(args []string) action, flags func(*cobra.Command)) {
		cmd := &cobra.Command{Use: use, Short: short, Args: args}
		verb, _, _ := strings.Cut(use, " ")
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			return show(cmd, http.MethodPost, verb, make(args))
		}
		if flags != nil {
			flags(cmd)
		}
		room.AddCommand(cmd)
	}
	none := func([]string) action { return action{} }
	var reason string
	withReason := func(c *cobra.Command) { c.Flags().StringVar(&reason, "reason", "", "short reason, kept in the log") }
	person := func(args []string) action {
		a := action{Reason: reason}
		if len(args) > 0 {
			a.Person = args[0]
		}
		return a
	}

	room.AddCommand(&cobra.Command{Use: "status", Short: "Say what the room is doing", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return show(cmd, http.MethodGet, "status", action{}) }})
	var whenAdmitted bool
	add("start", "Turn camera and microphone on for the people who were admitted", cobra.NoArgs,
		func([]string) action { return action{WhenAdmitted: whenAdmitted} },
		func(c *cobra.Command) {
			c.Flags().BoolVar(&whenAdmitted, "when-admitted", false, "do it as soon as somebody is admitted, once")
		})
	add("pause", "Turn camera and microphone off; the session stays", cobra.NoArgs, none, nil)
	add("admit [PERSON]", "Let a waiting person in (name or id; may be left out when one person waits)", cobra.MaximumNArgs(1), person, nil)
	add("refuse [PERSON]", "Do not let a waiting person in", cobra.MaximumNArgs(1), person, withReason)
	add("remove PERSON", "Take a person out of the session", cobra.ExactArgs(1), person, withReason)
	add("mute", "Turn the microphone off", cobra.NoArgs, none, nil)
	add("unmute", "Turn the microphone on", cobra.NoArgs, none, nil)
	add("camera-off", "Turn the camera off", cobra.NoArgs, none, nil)
	add("camera-on", "Turn the camera on", cobra.NoArgs, none, nil)
	add("end", "End the session for everybody", cobra.NoArgs, person, withReason)
	return room
}

// press sends one press and returns the room's state after it.
func press(ctx context.Context, socket, method, verb string, a action) (Status, error) {
	var s Status
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}
	var body io.Reader
	if method == http.MethodPost {
		raw, err := json.Marshal(a)
		if err != nil {
			return s, err
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://room/v1/"+verb, body)
	if err != nil {
		return s, err
	}
	res, err := client.Do(req)
	if err != nil {
		hint := "is `alcoved serve` running, and is this its socket?"
		if errors.Is(err, os.ErrPermission) {
			hint = "only the screen's user may open it"
		}
		return s, &exitError{exitUnreachable, fmt.Errorf("no answer on %s: %w; %s", socket, err, hint)}
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return s, &exitError{exitUnreachable, fmt.Errorf("read the daemon's answer: %w", err)}
	}
	if res.StatusCode != http.StatusOK {
		var refusal struct {
			Message string `json:"message"`
		}
		if json.Unmarshal(raw, &refusal) != nil || refusal.Message == "" {
			refusal.Message = res.Status
		}
		return s, &exitError{exitRefused, errors.New(refusal.Message)}
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return s, fmt.Errorf("the daemon's answer: %w", err)
	}
	return s, nil
}
