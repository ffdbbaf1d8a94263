// Command alcoved is the room's daemon, and `alcoved room …` is the touch until the room screen presses the
// same calls.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/alcove-room/alcove/daemon"
)

// version is set at build time.
var version = "devel"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use:           "alcoved",
		Short:         "The daemon of an Alcove room",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(serveCommand(), daemon.RoomCommand())
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "alcoved:", err)
		os.Exit(daemon.ExitCode(err))
	}
}

func serveCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:     "serve",
		Short:   "Run the room",
		Example: "  alcoved serve --config /etc/alcove/alcoved.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conf, err := daemon.ReadConfig(path)
			if err != nil {
				return err
			}
			return daemon.Run(cmd.Context(), conf, daemon.Options{Version: version, Stderr: cmd.ErrOrStderr()})
		},
	}
	cmd.Flags().StringVar(&path, "config", "/etc/alcove/alcoved.yaml", "configuration file")
	return cmd
}
