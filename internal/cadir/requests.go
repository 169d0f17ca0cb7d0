package cadir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Requests (requests/NAME.pem) are not replicated, and are not part of a set: anyone may
// send one, an agent that waits for its certificate sends it again, to whoever is the CA
// then, and what is copied could not be told from a stray.
//
// A stray is one that a sealed CA stored: its agent was answered 500, and on its next try
// is told that it "already has a requested certificate", which no autosigning looks at
// again. So requests that came since the CA was sealed are removed before it is opened,
// and on a standby once they are old, so that they do not pile up. What came before the
// seal was accepted, waits for an operator, and stays.

// strayAge is how old one is let become on a standby. An agent that is just being answered
// still has its own.
const strayAge = 5 * time.Minute

// removeStrays removes requests that came since the CA was sealed and are at least of an
// age. Where it is not known since when, all stay.
func (d *Dir) removeStrays(age time.Duration) (removed int, err error) {
	record, err := d.sealRecord()
	if errors.Is(err, fs.ErrNotExist) || err == nil && record.Since.IsZero() {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("reading since when it is sealed: %w", err)
	}
	// The directory is puppetserver's: names in it are looked at through one handle.
	dir, err := os.OpenFile(d.file(requestsDir), os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(maxRequests)
	if err != nil && len(names) == 0 {
		return 0, nil // none: io.EOF
	}
	now := time.Now()
	for _, name := range names {
		if !strings.HasSuffix(name, ".pem") {
			continue
		}
		s, err := statAt(int(dir.Fd()), name)
		if err != nil || s.zero() || !s.regular() || s.time().Before(record.Since) || now.Sub(s.time()) < age {
			continue
		}
		if err := d.step("remove request"); err != nil {
			return removed, err
		}
		if err := unix.Unlinkat(int(dir.Fd()), name, 0); err != nil && err != unix.ENOENT {
			return removed, fmt.Errorf("removing request %q: %w", name, err)
		}
		removed++
	}
	return removed, nil
}
