package wire

import (
	"bytes"
	"encoding/binary"
	"math/bits"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// reader reads a message from the buffers in which it was received, which may end anywhere in it. It does not check
// every step: reading on after a failure, or past the end of a nested message, yields rubbish but does no harm, and is
// noticed at the end of that message, when odd is set.
type reader struct {
	seg  []byte          // the current buffer
	at   int             // what is unread of it is seg[at:]
	base int             // where seg begins in the whole message
	end  int             // where the current message ends in the whole message
	rest mem.BufferSlice // the buffers after seg
	odd  bool            // the message is one for the standard codec
}

func newReader(data mem.BufferSlice) reader {
	return reader{rest: data, end: data.Len()}
}

// pos returns how many bytes have been read.
func (r *reader) pos() int { return r.base + r.at }

// left returns how many bytes of the current message are unread; fewer than none if it was read past its end.
func (r *reader) left() int { return r.end - r.pos() }

// more reports whether the current message has another field.
func (r *reader) more() bool { return r.pos() < r.end && !r.odd }

// enter begins a nested message, whose tag has been read. It returns what the matching leave takes.
func (r *reader) enter() (outer int) {
	outer = r.end
	n := r.length()
	r.end = r.pos() + n
	return outer
}

func (r *reader) leave(outer int) {
	if r.left() != 0 {
		r.odd = true
	}
	r.end = outer
}

// advance moves to the next buffer that is not empty, when the current one has been read. It returns false if there is
// none.
func (r *reader) advance() bool {
	for len(r.rest) > 0 {
		r.base += len(r.seg)
		r.seg, r.at = r.rest[0].ReadOnlyData(), 0
		r.rest = r.rest[1:]
		if len(r.seg) > 0 {
			return true
		}
	}
	r.odd = true
	return false
}

// byte reads the next byte. A field begins so: the tags of all fields that a response may have are one byte.
func (r *reader) byte() byte {
	if r.at == len(r.seg) && !r.advance() {
		return 0
	}
	b := r.seg[r.at]
	r.at++
	return b
}

func (r *reader) varint() uint64 {
	if i := r.at; i < len(r.seg) {
		if v := uint64(r.seg[i]); v < 0x80 {
			r.at = i + 1
			return v
		} else if i+1 < len(r.seg) && r.seg[i+1] < 0x80 {
			r.at = i + 2
			return v&0x7f | uint64(r.seg[i+1])<<7
		}
	}
	return r.longVarint()
}

func (r *reader) longVarint() uint64 {
	if v, n := uvarint(r.seg[r.at:]); n > 0 {
		r.at += n
		return v
	}
	// It is malformed, or goes on in the next buffer.
	var b [10]byte
	for i := range b {
		if b[i] = r.byte(); b[i] < 0x80 {
			break
		}
	}
	v, n := protowire.ConsumeVarint(b[:])
	if n < 0 {
		r.odd = true
		return 0
	}
	return v
}

// length reads the length of what follows, which the current message is sure to hold.
func (r *reader) length() int {
	v, left := r.varint(), r.left()
	if left < 0 || v > uint64(left) {
		r.odd = true
		return 0
	}
	return int(v)
}

// bytes reads n bytes into memory of their own. The caller knows that they are there.
func (r *reader) bytes(n int) []byte {
	var few [8][]byte
	parts := few[:0]
	for {
		part := r.seg[r.at:min(r.at+n, len(r.seg))]
		parts = append(parts, part)
		r.at += len(part)
		if n -= len(part); n == 0 || !r.advance() {
			return bytes.Join(parts, nil) // which, unlike make, does not clear them first
		}
	}
}

// view reads the next bytes, of which nothing may be kept: they lie in the received buffer if they are in one piece
// there. The caller knows that they are there.
func (r *reader) view(n int) []byte {
	if n > len(r.seg)-r.at {
		return r.bytes(n)
	}
	r.at += n
	return r.seg[r.at-n : r.at]
}

// skip passes over the next n bytes. The caller knows that they are there.
func (r *reader) skip(n int) {
	for n > len(r.seg)-r.at {
		n -= len(r.seg) - r.at
		r.at = len(r.seg)
		if !r.advance() {
			return
		}
	}
	r.at += n
}

// field splits tag and number off the first field of a message that is in one piece. The number is the length of what
// follows, if that has one. The tag is 0, as no field's is, if they are malformed.
func field(b []byte) (tag byte, num uint64, rest []byte) {
	if len(b) > 2 {
		if b[1] < 0x80 {
			return b[0], uint64(b[1]), b[2:]
		}
		if b[2] < 0x80 {
			return b[0], uint64(b[1]&0x7f) | uint64(b[2])<<7, b[3:]
		}
	}
	return longField(b)
}

// longField is field for a number of more than two bytes, or a message of no more than two.
func longField(b []byte) (tag byte, num uint64, rest []byte) {
	if len(b) > 1 {
		if num, n := uvarint(b[1:]); n > 0 {
			return b[0], num, b[1+n:]
		}
	}
	return 0, 0, nil
}

// uvarint reads a varint as protowire.ConsumeVarint does: n is its length, or negative if it is malformed. One of up to
// eight bytes, as all revisions are, is put together from one load, without a branch a byte.
func uvarint(b []byte) (v uint64, n int) {
	if len(b) >= 8 {
		v = binary.LittleEndian.Uint64(b)
		if last := ^v & 0x8080808080808080; last != 0 {
			used := bits.TrailingZeros64(last) + 1
			v &= 0x7f7f7f7f7f7f7f7f & (1<<used - 1)
			v = v&0x007f007f007f007f | v&0x7f007f007f007f00>>1
			v = v&0x00003fff00003fff | v&0x3fff00003fff0000>>2
			v = v&0x000000000fffffff | v&0x0fffffff00000000>>4
			return v, used / 8
		}
	}
	return protowire.ConsumeVarint(b)
}

// data splits off data of a length that a field has given. It has no spare capacity, and is nil if empty, as the
// standard codec has it.
func data(b []byte, n uint64) (data, rest []byte, ok bool) {
	switch {
	case n == 0:
		return nil, b, true
	case n > uint64(len(b)):
		return nil, nil, false
	}
	return b[:n:n], b[n:], true
}
