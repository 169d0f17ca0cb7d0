package cadir

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
)

// DefaultGap is how far a serial is moved on when a CA is opened elsewhere: more than a
// CA issues in the time that its standby may be behind.
const DefaultGap = 1000

// bumpFile is the name of the record in the state directory.
const bumpFile = "bump.json"

// bumpRecord is the last move of the serial. It is written before the serial is.
type bumpRecord struct {
	Stamp  string `json:"stamp"`
	Serial uint64 `json:"serial"`
}

// turn is the first serial, not below one, of a block of gap serials that belongs to
// this host. Two hosts that know nothing of each other's last serials, as at two sides of
// a cut or after two disasters in a row, so never issue from the same block.
func (o *Options) turn(serial, gap uint64) uint64 {
	if o.Turns < 2 {
		return serial
	}
	block := (serial + gap - 1) / gap
	for block%o.Turns != o.Turn%o.Turns {
		block++
	}
	return block * gap
}

// BumpSerial moves the serial past all that was issued here by gap (0: DefaultGap), so
// that a serial that the former camaster issued, and that did not come to be known here,
// is not issued again. It does so once for each stamp, the camaster's version: a member
// that was restarted, or killed in the middle, moves it no further. The CA has to be
// sealed and its set to verify; it stays sealed.
func (d *Dir) BumpSerial(ctx context.Context, stamp string, gap uint64) (from, to uint64, err error) {
	if err := d.change.take(ctx); err != nil {
		return 0, 0, fmt.Errorf("moving the serial: %w", err)
	}
	defer d.change.release()
	from, to, err = d.bumpSerial(ctx, stamp, gap)
	if err != nil {
		err = fmt.Errorf("moving the serial: %w", err)
	}
	return from, to, err
}

func (d *Dir) bumpSerial(ctx context.Context, stamp string, gap uint64) (from, to uint64, err error) {
	if stamp == "" {
		return 0, 0, errors.New("it is not known for which version of the camaster")
	}
	if gap == 0 {
		gap = DefaultGap
	}
	if err := d.noJournal(); err != nil {
		return 0, 0, err
	}
	was, err := statPath(d.file(serialFile))
	if err != nil {
		return 0, 0, err
	}
	set, err := d.Verify(ctx)
	if err != nil {
		return 0, 0, err
	}
	record, err := d.bumpRecord()
	if err != nil {
		return 0, 0, err
	}
	if record.Stamp == stamp {
		if set.Serial >= record.Serial {
			return set.Serial, set.Serial, nil
		}
	} else {
		record = bumpRecord{stamp, d.options.turn(max(set.Serial, set.Highest+1)+gap, gap)}
		if gap > MaxSerial || record.Serial > MaxSerial {
			return 0, 0, fmt.Errorf("the serial %04X cannot be moved on by %d: %X is the last that puppetserver can use", set.Serial, gap, uint64(MaxSerial))
		}
	}
	isSealed, err := d.Sealed()
	if err != nil {
		return 0, 0, err
	}
	if !isSealed {
		return 0, 0, errors.New("the CA is not sealed: puppetserver may be using the serial")
	}
	if err := d.step("bump record"); err != nil {
		return 0, 0, err
	}
	if err := d.writeState(bumpFile, record); err != nil {
		return 0, 0, err
	}
	uid, _, _, err := d.owner()
	if err != nil {
		return 0, 0, err
	}
	a := attributes{}
	a.uid, a.gid, a.mode = d.sealAs(uid)
	if err := d.putSerial(formatSerial(record.Serial), was, a); err != nil {
		return 0, 0, err
	}
	return set.Serial, record.Serial, nil
}

func (d *Dir) bumpRecord() (bumpRecord, error) {
	var r bumpRecord
	data, err := d.state.Read(bumpFile)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err != nil {
		return r, fmt.Errorf("the record of its last move, %s in %s, is damaged (%w): remove it, and the serial is moved once more, which does no harm", bumpFile, d.state, err)
	}
	return r, nil
}
