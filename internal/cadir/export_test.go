package cadir

import "errors"

// ErrCrash is what a crash in a test looks like.
var ErrCrash = errors.New("crash")

// CrashAt has d give up before its n-th change on disk, as if it was killed there;
// steps counts them.
func (d *Dir) CrashAt(n int) (steps *int) {
	steps = new(int)
	d.step = func(string) error {
		if *steps++; *steps == n {
			return ErrCrash
		}
		return nil
	}
	return steps
}

// Reads is how many files d has read.
func (d *Dir) Reads() int { return d.reads }

var Switched = switched

// Hasty has d wait no longer than it must in a test of one goroutine.
func (d *Dir) Hasty() { d.settle = 10 }
