// Command kbsync keeps a ReplyCX knowledge base true to document folders.
//
// Each command has a file of its own. What they share is in app.go (the config, the state and the API, put
// together), output.go (what is printed, and where), flags.go and exit.go.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program: it returns the exit code.
func run(ctx context.Context, args, env []string, stdin io.Reader, stdout, stderr io.Writer) int {
	signals := watchSignals(ctx)
	defer signals.end()

	a := &app{env: env, stdin: stdin, out: newOutput(stdout, stderr, env), now: time.Now, signals: signals}
	root := a.rootCommand()
	root.SetArgs(args)
	// The context that ends with the first signal. What has to end in good order takes that of the second one.
	err := root.ExecuteContext(signals.soft)
	if err == nil {
		return exitDone
	}
	code := exitCode(err)
	if code == exitOther && signals.soft.Err() != nil {
		code = exitInterrupted
	}
	a.out.fail(err, code)
	return code
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "kbsync",
		Short: "Keep a ReplyCX knowledge base true to document folders",
		Long: `kbsync keeps a ReplyCX knowledge base true to document folders: it uploads what is new or has changed, once,
and follows each upload until its training has completed or failed.

Try it without an account:
  kbsync sync ./docs --knowledge-base 876 --emulator`,
		Args:                       cobra.ArbitraryArgs,
		SilenceErrors:              true,
		SilenceUsage:               true,
		DisableAutoGenTag:          true,
		SuggestionsMinimumDistance: 2,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			message := fmt.Sprintf("there is no command %s", quoted(args[0]))
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				return usageError(message + "; did you mean " + strings.Join(near, " or ") + "?")
			}
			return usageError(message + "; kbsync help lists them")
		},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.begin(cmd) },
	}
	root.SetIn(a.stdin)
	root.SetOut(a.out.stdout)
	root.SetErr(a.out.stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError(fmt.Sprintf("%v; %s --help shows what there is", err, cmd.CommandPath()))
	})
	a.globalFlags(root.PersistentFlags())
	root.AddCommand(
		a.syncCommand(),
		a.watchCommand(),
		a.planCommand(),
		a.statusCommand(),
		a.reindexCommand(),
		a.retryCommand(),
		a.explainCommand(),
		a.sourcesCommand(),
		a.verifyCommand(),
		a.waitCommand(),
		a.checkCommand(),
		a.initCommand(),
		a.stateCommand(),
		a.forgetCommand(),
		a.emulatorCommand(),
		a.apiCommand(),
		a.versionCommand(),
	)
	return root
}

// atMost is cobra.MaximumNArgs with a message that says what the arguments are.
func atMost(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > n {
			return usageError(fmt.Sprintf("%s is one argument too many; write: %s", quoted(args[n]), cmd.UseLine()))
		}
		return nil
	}
}

// exactly is cobra.ExactArgs with a message that says what the arguments are.
func exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < n {
			return usageError("an argument is missing; write: " + cmd.UseLine())
		}
		return atMost(n)(cmd, args)
	}
}
