package wire

import (
	"bytes"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// firstBuffer is the size of the buffer that a message starts in: what most requests need, and above the size below
// which gRPC does not give a buffer back to its pool.
const firstBuffer = 4 << 10

// maxExact is the size of the longest message that is given a buffer of just its size, in bytes.
const maxExact = 512

// writer writes a message from its end to its beginning, fields in falling order: so the length of a nested message is
// known when its turn comes, without a first pass over the sizes.
type writer struct {
	pool mem.BufferPool
	buf  *[]byte // from pool; nil until something is written
	at   int     // what is written is (*buf)[at:]
	odd  bool    // the message is one for the standard codec
}

// len returns the number of bytes written.
func (w *writer) len() int {
	if w.buf == nil {
		return 0
	}
	return len(*w.buf) - w.at
}

// next returns the n bytes before what is written, for the caller to fill.
func (w *writer) next(n int) []byte {
	if w.buf == nil || w.at < n { // an empty member may be the first to be written
		w.grow(n)
	}
	w.at -= n
	return (*w.buf)[w.at : w.at+n : w.at+n]
}

func (w *writer) grow(n int) {
	if w.buf == nil {
		w.buf = w.pool.Get(max(firstBuffer, n+firstBuffer/2))
		w.at = len(*w.buf)
		return
	}
	written := (*w.buf)[w.at:]
	grown := w.pool.Get(2*len(*w.buf) + n)
	w.at = len(*grown) - len(written)
	copy((*grown)[w.at:], written)
	w.pool.Put(w.buf)
	w.buf = grown
}

// take returns what is written. It is the caller's to free, and then the buffer goes back to the pool.
func (w *writer) take() mem.BufferSlice {
	if w.buf == nil {
		return nil
	}
	// The pool wants its buffer back from its beginning on, so the message is a slice of the buffer that holds it.
	whole := mem.NewBuffer(w.buf, w.pool)
	defer whole.Free()
	return mem.BufferSlice{whole.Slice(w.at, len(*w.buf))}
}

// takeExact is take for messages that are sent many at a time, by streams. Each waits in a queue of gRPC's, where a
// pooled buffer, far larger than such a message, would be held as long.
func (w *writer) takeExact() mem.BufferSlice {
	if w.buf == nil || w.len() > maxExact {
		return w.take()
	}
	message := bytes.Clone((*w.buf)[w.at:])
	w.pool.Put(w.buf)
	return mem.BufferSlice{mem.SliceBuffer(message)}
}

func (w *writer) varint(v uint64) {
	if v < 0x80 {
		w.next(1)[0] = byte(v)
		return
	}
	protowire.AppendVarint(w.next(protowire.SizeVarint(v))[:0], v)
}

// end writes the length and the tag of a nested message that was begun when before bytes had been written.
func (w *writer) end(tag uint64, before int) {
	w.varint(uint64(w.len() - before))
	w.varint(tag)
}

// ordinary marks the message as one for the standard codec if it is not ordinary, and returns its argument.
func (w *writer) ordinary(is bool) bool {
	if !is {
		w.odd = true
	}
	return is
}

// The field methods write a field unless it has its zero value, the member methods (for members of a oneof) always.

func (w *writer) intField(tag uint64, v int64) {
	if v != 0 {
		w.memberInt(tag, v)
	}
}

func (w *writer) boolField(tag uint64, v bool) {
	if v {
		w.memberInt(tag, 1)
	}
}

func (w *writer) bytesField(tag uint64, v []byte) {
	if len(v) > 0 {
		w.memberBytes(tag, v)
	}
}

func (w *writer) memberInt(tag uint64, v int64) {
	w.varint(uint64(v))
	w.varint(tag)
}

func (w *writer) memberBytes(tag uint64, v []byte) {
	copy(w.next(len(v)), v)
	w.varint(uint64(len(v)))
	w.varint(tag)
}
