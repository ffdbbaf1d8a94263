package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/alcove-room/alcove/provisioning/document"
	"github.com/alcove-room/alcove/provisioning/hub"
)

type participant struct {
	ID   string `json:"id,omitempty"`
	Role string `json:"role"`
	Name string `json:"name"`
}

type session struct {
	SID          string        `json:"sid,omitempty"`
	Room         string        `json:"room"`
	Starts       time.Time     `json:"starts"`
	Ends         time.Time     `json:"ends"`
	Participants []participant `json:"participants"`
}

type invitation struct {
	Link    string    `json:"link"`
	Expires time.Time `json:"expires"`
}

// desk is the front desk's connection to a running hub.
type desk struct {
	config, socket *string
	asJSON         *bool
}

func newDesk(c *cobra.Command) desk {
	return desk{
		config: c.PersistentFlags().String("config", defaultConfig, "configuration file, for the place of the hub's socket"),
		socket: c.PersistentFlags().String("socket", "", "the hub's admin socket (default: as configured)"),
		asJSON: c.PersistentFlags().Bool("json", false, "print JSON"),
	}
}

func sessionCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "session",
		Short: "make, list and cancel sessions, and invite people",
		Example: `  alcove-hub session add --room room-3 --with "therapist:Dr. Weiss" --invite
  alcove-hub session add --room room-3 --with "patient:Sam" --starts "2026-11-23 15:00" --length 50m
  alcove-hub session list
  alcove-hub session invite SESSION PARTICIPANT
  alcove-hub session cancel SESSION`,
	}
	d := newDesk(c)
	c.AddCommand(d.add(), d.list(), d.cancel(), d.invite())
	return c
}

func (d desk) add() *cobra.Command {
	c := &cobra.Command{
		Use:   "add",
		Short: "make a session",
		Long: `add makes a session in a room for one to four remote people. Each gets a link of their own by
"alcove-hub session invite", or at once with --invite. A link works in the first browser that uses it.`,
		Args: cobra.NoArgs,
		Example: `  alcove-hub session add --room room-3 --with "therapist:Dr. Weiss" --invite
  alcove-hub session add --room room-3 --with "patient:Sam" --with "guest:Interpreter" --starts 15:00`,
	}
	room := c.Flags().String("room", "", "name of the room in the clinic's roster")
	with := c.Flags().StringArray("with", nil, "remote person as role:name; roles are therapist, patient, guest")
	starts := c.Flags().String("starts", "now", `"now", a time today (15:00), "2026-11-23 15:00", or RFC 3339`)
	length := c.Flags().Duration("length", 50*time.Minute, "length of the session")
	links := c.Flags().Bool("invite", false, "print a link for each person")
	required(c, "room")
	required(c, "with")
	c.RunE = func(c *cobra.Command, _ []string) error {
		begin, err := parseStart(*starts, time.Now())
		if err != nil {
			return err
		}
		req := session{Room: *room, Starts: begin.UTC(), Ends: begin.Add(*length).UTC()}
		for _, w := range *with {
			role, name, ok := strings.Cut(w, ":")
			if !ok {
				return fmt.Errorf("--with %q: role:name is expected, as in \"patient:Sam\"", w)
			}
			req.Participants = append(req.Participants, participant{Role: strings.TrimSpace(role), Name: strings.TrimSpace(name)})
		}
		var made session
		if err := d.call(c.Context(), http.MethodPost, "/v1/sessions", req, &made); err != nil {
			return err
		}
		return d.printMade(c, made, *links)
	}
	return c
}

// printMade prints a new session, with links when they are wanted.
func (d desk) printMade(c *cobra.Command, made session, links bool) error {
	type linked struct {
		participant
		Link string `json:"link,omitempty"`
	}
	var people []linked
	for _, p := range made.Participants {
		l := linked{participant: p}
		if links {
			i, err := d.makeLink(c.Context(), made.SID, p.ID)
			if err != nil {
				return fmt.Errorf("session %s was made, but not every link: %w", made.SID, err)
			}
			l.Link = i.Link
		}
		people = append(people, l)
	}
	w := c.OutOrStdout()
	if *d.asJSON {
		return printJSON(w, struct {
			SID          string    `json:"sid"`
			Room         string    `json:"room"`
			Starts       time.Time `json:"starts"`
			Ends         time.Time `json:"ends"`
			Participants []linked  `json:"participants"`
		}{made.SID, made.Room, made.Starts, made.Ends, people})
	}
	fmt.Fprintf(w, "session %s in %s, %s\n", made.SID, made.Room, window(made))
	for _, p := range people {
		fmt.Fprintf(w, "  %s %s (%s)\n", p.ID, p.Name, p.Role)
		if p.Link != "" {
			fmt.Fprintf(w, "    %s\n", p.Link)
		}
	}
	if !links {
		fmt.Fprintf(w, "Make a link with: alcove-hub session invite %s %s\n", made.SID, made.Participants[0].ID)
	}
	return nil
}

func window(s session) string {
	return s.Starts.Local().Format("2006-01-02 15:04") + " to " + s.Ends.Local().Format("15:04")
}

func (d desk) list() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "list sessions that have not ended", Args: cobra.NoArgs,
		Example: "  alcove-hub session list --json",
		RunE: func(c *cobra.Command, _ []string) error {
			var got struct {
				Sessions []session `json:"sessions"`
			}
			if err := d.call(c.Context(), http.MethodGet, "/v1/sessions", nil, &got); err != nil {
				return err
			}
			w := c.OutOrStdout()
			if *d.asJSON {
				return printJSON(w, got)
			}
			if len(got.Sessions) == 0 {
				_, err := fmt.Fprintln(w, "There are no sessions.")
				return err
			}
			table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
			fmt.Fprintln(table, "SESSION\tROOM\tWHEN\tPARTICIPANT\tNAME\tROLE")
			for _, s := range got.Sessions {
				for _, p := range s.Participants {
					fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", s.SID, s.Room, window(s), p.ID, p.Name, p.Role)
				}
			}
			return table.Flush()
		},
	}
}

func (d desk) cancel() *cobra.Command {
	return &cobra.Command{
		Use: "cancel SESSION", Short: "end a session for everybody, now", Args: cobra.ExactArgs(1),
		Example: "  alcove-hub session cancel m3v1n0JqQm2v8fC1s5wq2Q",
		RunE: func(c *cobra.Command, args []string) error {
			if err := d.call(c.Context(), http.MethodDelete, "/v1/sessions/"+url.PathEscape(args[0]), nil, &struct{}{}); err != nil {
				return err
			}
			if *d.asJSON {
				return printJSON(c.OutOrStdout(), struct{}{})
			}
			_, err := fmt.Fprintln(c.OutOrStdout(), "The session is cancelled. Its links do not work any more.")
			return err
		},
	}
}

func (d desk) invite() *cobra.Command {
	return &cobra.Command{
		Use: "invite SESSION PARTICIPANT", Short: "make a link for one person",
		Long: `invite makes a link for one person of a session. A link that the person had before stops to work, and so
does the page that was opened with it.`,
		Args:    cobra.ExactArgs(2),
		Example: "  alcove-hub session invite m3v1n0JqQm2v8fC1s5wq2Q Zp0tq3V1xk8mB2aL",
		RunE: func(c *cobra.Command, args []string) error {
			i, err := d.makeLink(c.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			if *d.asJSON {
				return printJSON(c.OutOrStdout(), i)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s\nIt works in one browser, until %s.\n", i.Link, i.Expires.Local().Format("2006-01-02 15:04"))
			return err
		},
	}
}

func (d desk) makeLink(ctx context.Context, sid, id string) (invitation, error) {
	var i invitation
	body := struct {
		Participant string `json:"participant"`
	}{id}
	return i, d.call(ctx, http.MethodPost, "/v1/sessions/"+url.PathEscape(sid)+"/invitations", body, &i)
}

// call makes one request on the hub's admin socket.
func (d desk) call(ctx context.Context, method, path string, in, out any) error {
	socket := *d.socket
	if socket == "" {
		conf, err := hub.LoadConfig(*d.config)
		if err != nil {
			return err
		}
		socket = conf.Admin.Socket
	}
	var body io.Reader = http.NoBody
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(raw)
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://hub"+path, body)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("reach the hub at %s: %w (is alcove-hub serve running, and may you use its socket?)", socket, err)
	}
	raw, err := io.ReadAll(io.LimitReader(res.Body, document.MaxSize))
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return fmt.Errorf("read the hub's answer: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		var refusal struct {
			Error   string `json:"error"`
			Message string `json:"message"`
		}
		if err := document.Decode(raw, &refusal); err != nil {
			return fmt.Errorf("the hub answered %s", res.Status)
		}
		return errors.New(refusal.Message)
	}
	if err := document.Decode(raw, out); err != nil {
		return fmt.Errorf("read the hub's answer: %w", err)
	}
	return nil
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false) // links hold &
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// parseStart reads --starts in local time.
func parseStart(s string, now time.Time) (time.Time, error) {
	if s == "now" {
		return now, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	if t, err := time.ParseInLocation("2006-01-02 15:04", s, now.Location()); err == nil {
		return t, nil
	}
	if t, err := time.ParseInLocation("15:04", s, now.Location()); err == nil {
		y, m, d := now.Date()
		return time.Date(y, m, d, t.Hour(), t.Minute(), 0, 0, now.Location()), nil
	}
	return time.Time{}, fmt.Errorf("--starts %q: say now, 15:00, \"2026-11-23 15:00\" or an RFC 3339 time", s)
}
