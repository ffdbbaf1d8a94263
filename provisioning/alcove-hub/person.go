package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

type person struct {
	Subject  string    `json:"subject"`
	Name     string    `json:"name"`
	Roles    []string  `json:"roles"`
	Passkeys []passkey `json:"passkeys"`
	TOTP     bool      `json:"totp"`
	PIN      string    `json:"pin"`
}

type passkey struct {
	ID        string    `json:"id"`
	PublicKey string    `json:"public_key"`
	RPID      string    `json:"rp_id"`
	AAGUID    string    `json:"aaguid"`
	Check     string    `json:"check"`
	Created   time.Time `json:"created"`
}

func personCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "person",
		Short: "who may sign in, and with what",
		Long: `person keeps the people who sign in at the hub. Invitations to sessions work without any of it.
What a room believes of a person stands in the clinic's signed people document and not here.`,
		Example: `  alcove-hub person add weiss --name "Dr. Weiss" --role therapist
  alcove-hub person link weiss
  alcove-hub person recovery weiss
  alcove-hub person add sam --name Sam --role patient
  alcove-hub person pin sam`,
	}
	d := newDesk(c)
	c.AddCommand(d.addPerson(), d.listPeople(), d.removePerson(), d.link(), d.totp(), d.recovery(), d.pin(), d.visit())
	return c
}

func personPath(subject, what string) string {
	return "/v1/people/" + url.PathEscape(subject) + "/" + what
}

// say prints what the hub answered: as JSON when that is wanted, otherwise in words.
func (d desk) say(c *cobra.Command, v any, words ...string) error {
	if *d.asJSON {
		return printJSON(c.OutOrStdout(), v)
	}
	for _, w := range words {
		if _, err := fmt.Fprintln(c.OutOrStdout(), w); err != nil {
			return err
		}
	}
	return nil
}

func (d desk) addPerson() *cobra.Command {
	c := &cobra.Command{
		Use: "add PSEUDONYM", Short: "add a person", Args: cobra.ExactArgs(1),
		Long: `add lets somebody sign in. The pseudonym is the one of the clinic's people document: 1 to 63 of a-z, 0-9 and
inner hyphens. A person can do nothing before they have a passkey (person link), a code generator or a PIN.`,
		Example: `  alcove-hub person add weiss --name "Dr. Weiss" --role therapist`,
	}
	name := c.Flags().String("name", "", "name that other people see")
	roles := c.Flags().StringSlice("role", nil, "role, may be repeated: therapist, patient, guest, frontdesk, it, auditor")
	required(c, "name")
	required(c, "role")
	c.RunE = func(c *cobra.Command, args []string) error {
		req := struct {
			Subject string   `json:"subject"`
			Name    string   `json:"name"`
			Roles   []string `json:"roles"`
		}{args[0], *name, *roles}
		if err := d.call(c.Context(), http.MethodPost, "/v1/people", req, &struct{}{}); err != nil {
			return err
		}
		return d.say(c, struct{}{}, "Added "+args[0]+".")
	}
	return c
}

func (d desk) listPeople() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "list people and what they can sign in with", Args: cobra.NoArgs,
		Long: `list shows each person with their passkeys. CHECK is what the person's browser shows after a registration:
compare both before the passkey goes into the clinic's people document. --json prints what that document needs.`,
		Example: "  alcove-hub person list --json",
		RunE: func(c *cobra.Command, _ []string) error {
			var got struct {
				People []person `json:"people"`
			}
			if err := d.call(c.Context(), http.MethodGet, "/v1/people", nil, &got); err != nil {
				return err
			}
			if *d.asJSON {
				return printJSON(c.OutOrStdout(), got)
			}
			table := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(table, "PSEUDONYM\tNAME\tROLES\tPASSKEYS (CHECK AT SITE)\tCODES\tPIN")
			for _, p := range got.People {
				var keys []string
				for _, k := range p.Passkeys {
					keys = append(keys, k.Check+" at "+k.RPID)
				}
				fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", p.Subject, p.Name, strings.Join(p.Roles, ","),
					strings.Join(keys, ", "), map[bool]string{true: "yes", false: "no"}[p.TOTP], p.PIN)
			}
			return table.Flush()
		},
	}
}

func (d desk) removePerson() *cobra.Command {
	return &cobra.Command{
		Use: "remove PSEUDONYM", Short: "remove a person, and sign them out everywhere", Args: cobra.ExactArgs(1),
		Example: "  alcove-hub person remove weiss",
		RunE: func(c *cobra.Command, args []string) error {
			err := d.call(c.Context(), http.MethodDelete, "/v1/people/"+url.PathEscape(args[0]), nil, &struct{}{})
			if err != nil {
				return err
			}
			return d.say(c, struct{}{}, "Removed "+args[0]+". Rooms go by the clinic's people document: take the person out of it too.")
		},
	}
}

func (d desk) link() *cobra.Command {
	return &cobra.Command{
		Use: "link PSEUDONYM", Short: "make a one-time registration for one passkey", Args: cobra.ExactArgs(1),
		Long: `link prints the token with which the person's browser registers one passkey, once, within a day. A token that
the person had before ends. The call page and the console each need a passkey of their own.`,
		Example: "  alcove-hub person link weiss",
		RunE: func(c *cobra.Command, args []string) error {
			var got struct {
				Registration string    `json:"registration"`
				Expires      time.Time `json:"expires"`
			}
			if err := d.call(c.Context(), http.MethodPost, personPath(args[0], "registration"), struct{}{}, &got); err != nil {
				return err
			}
			return d.say(c, got, got.Registration, "It registers one passkey, until "+got.Expires.Local().Format("2006-01-02 15:04")+".")
		},
	}
}

func (d desk) totp() *cobra.Command {
	return &cobra.Command{
		Use: "totp PSEUDONYM", Short: "make a code generator, for who cannot use a passkey", Args: cobra.ExactArgs(1),
		Long: `totp prints, once, the address that an authenticator app reads. One that the person had before ends. Who signs
in by a code is confirmed by the hub only (level 1).`,
		Example: "  alcove-hub person totp weiss",
		RunE: func(c *cobra.Command, args []string) error {
			var got struct {
				URI string `json:"uri"`
			}
			if err := d.call(c.Context(), http.MethodPost, personPath(args[0], "totp"), struct{}{}, &got); err != nil {
				return err
			}
			return d.say(c, got, got.URI)
		},
	}
}

func (d desk) recovery() *cobra.Command {
	return &cobra.Command{
		Use: "recovery PSEUDONYM", Short: "make recovery codes", Args: cobra.ExactArgs(1),
		Long: `recovery prints ten codes, once. Each lets the person register one new passkey. Codes that the person had
before end.`,
		Example: "  alcove-hub person recovery weiss",
		RunE: func(c *cobra.Command, args []string) error {
			var got struct {
				Codes []string `json:"codes"`
			}
			if err := d.call(c.Context(), http.MethodPost, personPath(args[0], "recovery"), struct{}{}, &got); err != nil {
				return err
			}
			return d.say(c, got, got.Codes...)
		},
	}
}

func (d desk) pin() *cobra.Command {
	return &cobra.Command{
		Use: "pin PSEUDONYM", Short: "set a patient's PIN to a new one", Args: cobra.ExactArgs(1),
		Long: `pin prints a new PIN of six digits, once, for the patient to keep; after five wrong tries in a row it takes a
new one. Give it to the patient in person, never with the link.`,
		Example: "  alcove-hub person pin sam",
		RunE: func(c *cobra.Command, args []string) error {
			var got struct {
				PIN string `json:"pin"`
			}
			req := struct {
				PIN string `json:"pin"`
			}{""}
			if err := d.call(c.Context(), http.MethodPost, personPath(args[0], "pin"), req, &got); err != nil {
				return err
			}
			return d.say(c, got, got.PIN)
		},
	}
}

func (d desk) visit() *cobra.Command {
	return &cobra.Command{
		Use: "visit PSEUDONYM PARTICIPANT", Short: "say which patient a participant of a session is", Args: cobra.ExactArgs(2),
		Long:    `visit lets the participant's invitation and the patient's PIN together sign in. The link works as before.`,
		Example: "  alcove-hub person visit sam Zp0tq3V1xk8mB2aL",
		RunE: func(c *cobra.Command, args []string) error {
			req := struct {
				Participant string `json:"participant"`
			}{args[1]}
			if err := d.call(c.Context(), http.MethodPost, personPath(args[0], "visits"), req, &struct{}{}); err != nil {
				return err
			}
			return d.say(c, struct{}{}, "The participant is "+args[0]+".")
		},
	}
}
