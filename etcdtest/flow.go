package etcdtest

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// flowBuffer is the size of a read, and maxInFlight bounds the bytes that a slow link holds in each direction.
const (
	flowBuffer  = 32 << 10
	maxInFlight = 4 << 20
)

// flow is one direction of a connection through a proxy. One goroutine runs it: what it reads it writes at once, or,
// on a slow link, puts in a queue and goes on reading until the first of the queue is due.
type flow struct {
	c        *proxied
	dst, src net.Conn
	count    *atomic.Int64
	head     []byte // comes before what is read

	queue    []packet // in the order of their due times
	inFlight int      // bytes in queue
	ended    bool     // the end of the input has been read, and is in queue if it is not through yet
	lastDue  time.Time
	deadline bool // src has a read deadline
}

// packet is what one read gave: bytes, or the end of the input.
type packet struct {
	due  time.Time
	data []byte
	end  bool
}

var errReset = errors.New("connection reset")

// run forwards until the end of the input has been passed on. An error means that the connection is broken.
func (f *flow) run() error {
	if len(f.head) > 0 {
		f.enqueue(packet{due: f.due(len(f.head)), data: f.head})
	}
	buf := make([]byte, flowBuffer)
	for {
		if len(f.queue) > 0 && !time.Now().Before(f.queue[0].due) {
			next := f.queue[0]
			f.queue = f.queue[1:]
			f.inFlight -= len(next.data)
			if err := f.deliver(next); err != nil || next.end {
				return err
			}
			continue
		}
		if len(f.queue) > 0 && (f.ended || f.inFlight >= maxInFlight) {
			if err := f.wait(f.queue[0].due); err != nil {
				return err
			}
			continue
		}

		got, err := f.read(buf)
		if err != nil {
			return err
		}
		switch {
		case len(got.data) == 0 && !got.end:
			// The first of the queue is due.
		case len(f.queue) == 0 && !time.Now().Before(got.due):
			if err := f.deliver(got); err != nil || got.end {
				return err
			}
		default:
			got.data = append([]byte(nil), got.data...)
			f.enqueue(got)
		}
	}
}

func (f *flow) enqueue(p packet) {
	f.queue = append(f.queue, p)
	f.inFlight += len(p.data)
}

// read reads once, for as long as nothing in the queue is due, and says when what it got is.
func (f *flow) read(buf []byte) (packet, error) {
	var until time.Time
	if len(f.queue) > 0 {
		until = f.queue[0].due
	}
	if f.deadline || !until.IsZero() {
		_ = f.src.SetReadDeadline(until) // if it fails, so does the read
		f.deadline = !until.IsZero()
	}
	n, err := f.src.Read(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	if errors.Is(err, io.EOF) {
		f.ended, err = true, nil
	}
	if err != nil || n == 0 && !f.ended {
		return packet{}, err
	}
	return packet{due: f.due(n), data: buf[:n], end: f.ended}, nil
}

// due says when n bytes that came in now arrive on the other side: after the link's delay, not before those ahead
// of them, and at the link's rate.
func (f *flow) due(n int) time.Time {
	l, _ := f.c.p.state()
	due := time.Now().Add(l.delay())
	if due.Before(f.lastDue) {
		due = f.lastDue
	}
	if l.BytesPerSecond > 0 {
		due = due.Add(time.Duration(float64(n) / float64(l.BytesPerSecond) * float64(time.Second)))
	}
	f.lastDue = due
	return due
}

// deliver writes a packet, once the link lets it through.
func (f *flow) deliver(p packet) error {
	if !f.c.pass() {
		return errReset
	}
	if len(p.data) > 0 {
		// Counted beforehand: who has the answer to what went through finds that in the count.
		f.count.Add(int64(len(p.data)))
		if n, err := f.dst.Write(p.data); err != nil {
			f.count.Add(int64(n - len(p.data)))
			return err
		}
	}
	if p.end {
		if half, ok := f.dst.(interface{ CloseWrite() error }); ok {
			return half.CloseWrite()
		}
		return f.dst.Close()
	}
	return nil
}

// wait waits until the time given.
func (f *flow) wait(until time.Time) error {
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-f.c.ctx.Done():
		return errReset
	}
}
