// Command bench measures this plugin on this machine and prints one table: what
// an answer costs against CoreDNS's own file plugin, how soon a dead master is
// listed last, what a rebuild takes by size, whether the answers stay right under
// load, and how soon all nodes of a cluster answer another camaster.
//
// Machines differ and are shared, so that what counts are ratios and times
// against targets, all taken in one run. A missed target is printed, and is an
// error only with -strict.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// runTime bounds a run of every section.
const runTime = 15 * time.Minute

// sections in the order they are run.
var sections = []struct {
	name string
	run  func(*bench) error
}{
	{"cpu", (*bench).cpu},
	{"detect", (*bench).detect},
	{"rebuild", (*bench).rebuild},
	{"steady", (*bench).steady},
	{"flips", (*bench).flips},
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == masterCommand {
		if err := runMaster(os.Stdin, os.Stdout, os.Args[2:]); err != nil {
			fmt.Fprintf(os.Stderr, "bench %s: %v\n", masterCommand, err)
			os.Exit(1)
		}
		return
	}
	// Linux ends a child together with the thread that started it (see
	// attributes): this goroutine starts them, and keeps the main thread.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
	}
	os.Exit(code)
}

// run returns the exit code: 2 for a wrong command line, 1 for an error or, with
// -strict, for a missed target.
func run(ctx context.Context, args []string) (code int, err error) {
	var names []string
	for _, s := range sections {
		names = append(names, s.name)
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	bin := flags.String("bin", filepath.Join("bin", "puppetsrv"), "the puppetsrv `binary` to measure")
	only := flags.String("only", "", "comma-separated `sections` to run, of "+strings.Join(names, ", ")+"; all if empty")
	strict := flags.Bool("strict", false, "exit with 1 if a target is missed")
	keep := flags.Bool("keep", false, "keep the temporary directory with configurations and logs")
	kills := flags.Int("kills", 50, "how often a master is killed in section detect")
	flips := flags.Int("flips", 200, "how often the camaster is moved in section flips; a tenth as often over https, a quarter under load")
	rounds := flags.Int("rounds", 40, "how many rounds are measured in section cpu")
	profile := flags.Bool("profile", false, "keep the temporary directory, with CPU profiles of the nodes of sections cpu and rebuild")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0, nil
	} else if err != nil {
		return 2, nil // flag has said why
	}
	wanted := names
	if *only != "" {
		wanted = strings.Split(*only, ",")
	}
	for _, w := range wanted {
		if !slices.Contains(names, w) {
			return 2, fmt.Errorf("unknown section %q: the sections are %s", w, strings.Join(names, ", "))
		}
	}
	if flags.NArg() > 0 || *kills < 1 || *flips < 1 || *rounds < 1 {
		flags.Usage()
		return 2, nil
	}
	binary, err := filepath.Abs(*bin)
	if err != nil {
		return 1, err
	}
	if _, err := os.Stat(binary); err != nil {
		return 1, fmt.Errorf("the binary to measure: %w: build it with `make build`", err)
	}
	dir, err := os.MkdirTemp("", "puppetsrv-bench-")
	if err != nil {
		return 1, err
	}
	if *keep || *profile {
		defer fmt.Printf("kept %s\n", dir)
	} else {
		defer os.RemoveAll(dir)
	}
	ctx, cancel := context.WithTimeout(ctx, runTime)
	defer cancel()
	b := &bench{ctx: ctx, dir: dir, binary: binary, kills: *kills, flipCount: *flips, rounds: *rounds, profile: *profile, report: newReport(os.Stdout)}
	for _, s := range sections {
		if !slices.Contains(wanted, s.name) {
			continue
		}
		start := time.Now()
		err := s.run(b)
		b.endAll()
		if ctx.Err() != nil {
			return 1, context.Cause(ctx)
		}
		if err != nil {
			return 1, fmt.Errorf("section %s: %w", s.name, err)
		}
		b.report.say("section %s took %v", s.name, time.Since(start).Round(time.Second))
	}
	b.report.print()
	if b.report.missed > 0 && *strict {
		return 1, fmt.Errorf("%d targets missed", b.report.missed)
	}
	return 0, nil
}

// bench is one run. Only the main goroutine uses it.
type bench struct {
	ctx           context.Context
	dir, binary   string
	kills, rounds int
	flipCount     int // of section flips
	profile       bool
	report        *report
	processes     []*process
}

// endAll ends every process that was started and is not ended yet.
func (b *bench) endAll() {
	for _, p := range b.processes {
		p.end()
	}
	b.processes = nil
}
