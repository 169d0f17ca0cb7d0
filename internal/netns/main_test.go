//go:build linux

package netns_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience is how long a test waits for what should take a moment; this machine may
// be busy.
const patience = time.Minute

// roleVariable makes this test binary another program; see roles_test.go.
const roleVariable = "NETNS_TEST_ROLE"

// bin is where the programs are, once build has been called: where all tests are
// skipped, nothing is built.
var bin string

var build = sync.OnceValue(func() (err error) {
	if bin, err = os.MkdirTemp("", "netns-bin"); err != nil {
		return err
	}
	out, err := exec.Command("go", "build", "-o", bin, "../../cmd/puppetsrv", "../../cmd/puppetsrvctl", "../../cmd/puppetsrv-member").CombinedOutput()
	if err != nil {
		return fmt.Errorf("building the programs: %w: %s", err, out)
	}
	return nil
})

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "master":
		os.Exit(exitCode(runMaster(os.Args[1:])))
	case "holder":
		os.Exit(exitCode(runHolder(os.Args[1:])))
	case "thief":
		os.Exit(exitCode(runThief(os.Args[1:])))
	}
	waitTogether()
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(bin) // "" is none
		os.Exit(code)
	}))
}

// waitTogether lets more tests run at once than there are processors, unless -parallel
// says how many: a cut takes its time, in which nothing is to do.
func waitTogether() {
	flag.Parse()
	said := false
	flag.Visit(func(f *flag.Flag) { said = said || f.Name == "test.parallel" })
	if !said {
		_ = flag.Set("test.parallel", strconv.Itoa(max(8, runtime.GOMAXPROCS(0))))
	}
}

func exitCode(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// eventually waits for a condition that nothing announces.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
	}
}
