package jinja

import (
	"fmt"
	"strconv"
	"strings"
)

func strftimeNow(r *run, _ Value, a []Value) Value {
	format := r.text(a[0])
	r.scan(len(format))
	b := &builder{run: r}
	r.strftime(b, format)
	return b.String()
}

// strftime is datetime.strftime in the C locale, of a time without a zone.
func (r *run) strftime(b *builder, format string) {
	t := r.now
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			n := strings.IndexByte(format[i+1:], '%')
			if n < 0 {
				n = len(format) - i - 1
			}
			b.write(format[i : i+1+n])
			i += n
			continue
		}
		i++
		// glibc's flags: no padding, blanks instead of zeros, zeros, upper case.
		flag := byte(0)
		if strings.IndexByte("-_0^", format[i]) >= 0 && i+1 < len(format) {
			flag = format[i]
			i++
		}
		pad := func(n, width int, with byte) {
			s := strconv.Itoa(n)
			switch flag {
			case '-':
				width = 0
			case '_':
				with = ' '
			case '0':
				with = '0'
			}
			if len(s) < width {
				s = strings.Repeat(string(with), width-len(s)) + s
			}
			b.write(s)
		}
		write := func(s string) {
			if flag == '^' {
				s = strings.ToUpper(s)
			}
			b.write(s)
		}
		year, week := t.ISOWeek()
		switch format[i] {
		case '%':
			b.write("%")
		case 'n':
			b.write("\n")
		case 't':
			b.write("\t")
		case 'a':
			write(t.Format("Mon"))
		case 'A':
			write(t.Format("Monday"))
		case 'b', 'h':
			write(t.Format("Jan"))
		case 'B':
			write(t.Format("January"))
		case 'p':
			write(t.Format("PM"))
		case 'P':
			b.write(t.Format("pm"))
		case 'd':
			pad(t.Day(), 2, '0')
		case 'e':
			pad(t.Day(), 2, ' ')
		case 'm':
			pad(int(t.Month()), 2, '0')
		case 'y':
			pad(t.Year()%100, 2, '0')
		case 'C':
			pad(t.Year()/100, 2, '0')
		case 'Y':
			pad(t.Year(), 4, '0')
		case 'H':
			pad(t.Hour(), 2, '0')
		case 'k':
			pad(t.Hour(), 2, ' ')
		case 'I':
			pad((t.Hour()+11)%12+1, 2, '0')
		case 'l':
			pad((t.Hour()+11)%12+1, 2, ' ')
		case 'M':
			pad(t.Minute(), 2, '0')
		case 'S':
			pad(t.Second(), 2, '0')
		case 'f':
			b.write(fmt.Sprintf("%06d", t.Nanosecond()/1000))
		case 'j':
			pad(t.YearDay(), 3, '0')
		case 'U':
			pad((t.YearDay()+6-int(t.Weekday()))/7, 2, '0')
		case 'W':
			pad((t.YearDay()+6-(int(t.Weekday())+6)%7)/7, 2, '0')
		case 'V':
			pad(week, 2, '0')
		case 'G':
			pad(year, 4, '0')
		case 'g':
			pad(year%100, 2, '0')
		case 'w':
			b.write(strconv.Itoa(int(t.Weekday())))
		case 'u':
			b.write(strconv.Itoa((int(t.Weekday())+6)%7 + 1))
		case 's':
			b.write(strconv.FormatInt(t.Unix(), 10))
		case 'z', 'Z':
		case 'c':
			write(t.Format("Mon Jan _2 15:04:05 2006"))
		case 'D', 'x':
			b.write(t.Format("01/02/06"))
		case 'F':
			b.write(t.Format("2006-01-02"))
		case 'T', 'X':
			b.write(t.Format("15:04:05"))
		case 'R':
			b.write(t.Format("15:04"))
		case 'r':
			b.write(t.Format("03:04:05 PM"))
		default:
			b.write("%" + format[i:i+1])
		}
	}
}
