// Command alcove-hub is the clinic's server: appointments, waiting, relay, documents, and LiveKit as its child.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/alcove-room/alcove/provisioning/document"
	"github.com/alcove-room/alcove/provisioning/hub"
	"github.com/alcove-room/alcove/provisioning/hub/sfu"
	"github.com/alcove-room/alcove/systemd"
)

// version is set by the linker.
var version = "unknown"

const defaultConfig = "/etc/alcove-hub/hub.yaml"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "alcove-hub:", err)
		stop()
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "alcove-hub",
		Short:         "the clinic's server for Alcove rooms",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		Long: `alcove-hub keeps a clinic's appointments, lets people wait and rooms admit them, and stores the
clinic's signed documents. It holds no key that opens a call.

Setting one up, in this order:
  alcove-hub init --state /var/lib/alcove-hub      makes the key and prints its pin
  alcovectl …                                      makes the owner root with that pin
  alcove-hub trust --owner-root owner-root.json    trusts it, once
  alcove-hub serve`,
	}
	root.AddCommand(serveCommand(), initCommand(), pinCommand(), trustCommand(), sessionCommand(), personCommand(), sfuCommand())
	return root
}

func configFlag(c *cobra.Command) *string {
	return c.Flags().String("config", defaultConfig, "configuration file")
}

func serveCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "serve",
		Short:   "run the hub",
		Args:    cobra.NoArgs,
		Example: "  alcove-hub serve --config /etc/alcove-hub/hub.yaml",
	}
	path := configFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		conf, err := hub.LoadConfig(*path)
		if err != nil {
			return err
		}
		log := slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil))
		notify := systemd.New(log)
		program, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
		files, err := page(conf)
		if err != nil {
			return err
		}
		told := func(err error) {
			if err != nil {
				log.Warn("tell the service manager", "err", err)
			}
		}
		err = hub.Run(c.Context(), conf, hub.Options{
			Log: log, Page: files, SFU: []string{program, "sfu"}, Version: version,
			Ready: func() { told(notify.Ready()) },
		})
		told(notify.Stopping())
		return err
	}
	return c
}

func initCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "init",
		Short: "make the hub's key and print its pin",
		Long: `init makes the key that rooms know this hub by, in a folder that must not have one yet, and prints the
key's pin. The pin goes into the clinic's owner root.`,
		Args:    cobra.NoArgs,
		Example: "  alcove-hub init --state /var/lib/alcove-hub",
	}
	state := c.Flags().String("state", "", "folder for the hub's key and database")
	required(c, "state")
	c.RunE = func(c *cobra.Command, _ []string) error {
		pin, err := hub.MakeKey(*state)
		return printPin(c.OutOrStdout(), pin, err)
	}
	return c
}

func pinCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "pin",
		Short:   "print the pin of the hub's key",
		Args:    cobra.NoArgs,
		Example: "  alcove-hub pin --state /var/lib/alcove-hub",
	}
	state := c.Flags().String("state", "", "folder with the hub's key")
	required(c, "state")
	c.RunE = func(c *cobra.Command, _ []string) error {
		_, pin, err := hub.LoadKey(*state)
		return printPin(c.OutOrStdout(), pin, err)
	}
	return c
}

func printPin(w io.Writer, pin document.Hash, err error) error {
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, pin)
	return err
}

func trustCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "trust",
		Short: "trust the clinic's first owner root",
		Long: `trust stores the clinic's first owner root, once, while the hub does not run. Later ones come through
the devices listener, signed by the former (alcovectl).`,
		Args:    cobra.NoArgs,
		Example: "  alcove-hub trust --config /etc/alcove-hub/hub.yaml --owner-root owner-root.json",
	}
	path := configFlag(c)
	file := c.Flags().String("owner-root", "", "signed owner root (envelope)")
	required(c, "owner-root")
	c.RunE = func(c *cobra.Command, _ []string) error {
		conf, err := hub.LoadConfig(*path)
		if err != nil {
			return err
		}
		raw, err := readFile(*file, document.MaxSize)
		if err != nil {
			return fmt.Errorf("read owner root: %w", err)
		}
		clinic, err := hub.Trust(c.Context(), conf, raw, slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil)))
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.OutOrStdout(), "clinic %s\n", clinic)
		return err
	}
	return c
}

func readFile(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(f, most+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if int64(len(raw)) > most {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, most)
	}
	return raw, nil
}

// sfuCommand is the child of serve.
func sfuCommand() *cobra.Command {
	return &cobra.Command{
		Use: "sfu", Short: "the media server; started by serve", Hidden: true, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return sfu.Child() },
	}
}

func required(c *cobra.Command, name string) {
	if err := c.MarkFlagRequired(name); err != nil {
		panic("alcove-hub: " + err.Error()) // the flag was just defined
	}
}
