package tensorboard

import (
	"encoding/binary"
	"encoding/hex"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
)

// message is a protobuf message taken apart: of each field its values in order.
type message map[protowire.Number][]any

func parse(t *testing.T, b []byte) message {
	t.Helper()
	m := make(message)
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		require.Positive(t, n)
		b = b[n:]
		var v any
		switch kind {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			v, n = protowire.ConsumeFixed32(b)
		case protowire.Fixed64Type:
			v, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			v, n = protowire.ConsumeBytes(b)
		default:
			t.Fatalf("field %d is of wire type %d", field, kind)
		}
		require.Positive(t, n)
		b = b[n:]
		m[field] = append(m[field], v)
	}
	return m
}

func (m message) sub(t *testing.T, field protowire.Number) message {
	t.Helper()
	require.Len(t, m[field], 1)
	return parse(t, m[field][0].([]byte))
}

// events reads a file frame by frame, as TensorFlow's RecordReader does.
func events(t *testing.T, path string) (list []message) {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	for len(b) > 0 {
		n := binary.LittleEndian.Uint64(b)
		require.Equal(t, masked(b[:8]), binary.LittleEndian.Uint32(b[8:]))
		body := b[12 : 12+n]
		require.Equal(t, masked(body), binary.LittleEndian.Uint32(b[12+n:]))
		list = append(list, parse(t, body))
		b = b[16+n:]
	}
	return list
}

// peerFrame is the first frame of a file that EventFileWriter of tensorboard 2.21.0 wrote.
const peerFrame = "4800000000000000fe92489d09fb16391a07c2da411a0d627261696e2e4576656e743a32522e0a2c74656e736f72626f6172642e73756d6d6172792e7772697465722e6576656e745f66696c655f777269746572c53e78b7"

// The frame and the event are those of the peer, which also says who wrote it.
func TestFrame(t *testing.T) {
	want, err := hex.DecodeString(peerFrame)
	require.NoError(t, err)
	n := binary.LittleEndian.Uint64(want)
	body := want[12 : 12+n]
	require.Equal(t, want, frame(body))
	m := parse(t, body)
	require.Equal(t, "brain.Event:2", string(m[eventFileVersion][0].([]byte)))
	when := math.Float64frombits(m[eventWallTime][0].(uint64))
	sec, frac := math.Modf(when)
	require.Equal(t, body[:24], event(time.Unix(int64(sec), int64(math.Round(frac*1e9))), 0, eventFileVersion, []byte("brain.Event:2")))
}

func TestWriter(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "runs")
	require.False(t, Exist(dir))
	now := time.Unix(1700000000, 5e8)
	w, err := Create(dir, 1, now)
	require.NoError(t, err)
	require.True(t, Exist(dir))
	var s Summary
	require.NoError(t, w.Write(now, 1, &s), "nothing is nothing")
	s.Scalar("train/loss", 2.5)
	s.Text("samples/0", "Once *upon*", "a time")
	require.NoError(t, w.Write(now.Add(time.Second), 7, &s))
	require.NoError(t, w.Close())

	list := events(t, w.Name())
	require.Len(t, list, 2)
	require.Equal(t, "brain.Event:2", string(list[0][eventFileVersion][0].([]byte)))
	require.Equal(t, math.Float64bits(1700000000.5), list[0][eventWallTime][0])
	require.Equal(t, uint64(7), list[1][eventStep][0])
	require.Equal(t, math.Float64bits(1700000001.5), list[1][eventWallTime][0])
	values := list[1].sub(t, eventSummary)[summaryValue]
	require.Len(t, values, 2)
	loss := parse(t, values[0].([]byte))
	require.Equal(t, "train/loss", string(loss[valueTag][0].([]byte)))
	require.Equal(t, math.Float32bits(2.5), loss[valueSimple][0])
	sample := parse(t, values[1].([]byte))
	require.Equal(t, "samples/0/text_summary", string(sample[valueTag][0].([]byte)))
	require.Equal(t, "text", string(sample.sub(t, valueMetadata).sub(t, metadataPlugin)[pluginName][0].([]byte)))
	tensor := sample.sub(t, valueTensor)
	require.Equal(t, uint64(typeString), tensor[tensorType][0])
	require.Equal(t, uint64(2), tensor.sub(t, tensorShape).sub(t, shapeDim)[dimSize][0])
	require.Equal(t, []any{[]byte("Once *upon*"), []byte("a time")}, tensor[tensorString])

	// The next file of the same second comes after it by its name, and says from which step
	// on the first does not count.
	next, err := Create(dir, 5, now)
	require.NoError(t, err)
	require.NoError(t, next.Close())
	require.Greater(t, filepath.Base(next.Name()), filepath.Base(w.Name()))
	list = events(t, next.Name())
	require.Len(t, list, 2)
	require.Equal(t, uint64(5), list[1][eventStep][0])
	require.Equal(t, uint64(sessionStart), list[1].sub(t, eventSessionLog)[sessionStatus][0])
}

// A frame that cannot be written whole leaves the file as it was.
func TestWriteFails(t *testing.T) {
	w, err := Create(t.TempDir(), 1, time.Now())
	require.NoError(t, err)
	before, err := os.ReadFile(w.Name())
	require.NoError(t, err)
	require.NoError(t, w.f.Close())
	w.f, err = os.Open(w.Name()) // not for writing
	require.NoError(t, err)
	var s Summary
	s.Scalar("x", 1)
	require.Error(t, w.Write(time.Now(), 1, &s))
	after, err := os.ReadFile(w.Name())
	require.NoError(t, err)
	require.Equal(t, before, after)

	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o666))
	_, err = Create(file, 1, time.Now())
	require.Error(t, err)
}
