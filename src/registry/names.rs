//! The names of keys, packed. A block of memory for each would cost half as much as the rest of a key.

/// How many bytes are allocated at once.
const CHUNK: usize = 4096;

/// Places for names are multiples of this, in bytes.
const GRAIN: usize = 8;

/// Names in places of a few sizes. The memory depends on the most names of each size that there have been at
/// one time: places are reused.
#[derive(Default)]
pub(super) struct Names {
    sizes: Vec<Places>,
}

/// Where a name is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NameRef {
    pub(super) place: u32,
    /// In bytes.
    pub(super) length: u32,
}

/// Places of one size.
#[derive(Default)]
struct Places {
    chunks: Vec<Box<[u8]>>,
    /// The first place that was never used.
    end: u32,
    /// The places before it that are free again.
    free: Vec<u32>,
}

impl Names {
    pub(super) fn insert(&mut self, name: &str) -> NameRef {
        let (number, size) = size_for(name.len());
        if self.sizes.len() <= number {
            self.sizes.resize_with(number + 1, Places::default);
        }
        let places = &mut self.sizes[number];
        let place = places.free.pop().unwrap_or_else(|| {
            places.end += 1;
            places.end - 1
        });
        let (chunk, start) = split(place, size);
        if places.chunks.len() <= chunk {
            places.chunks.push(vec![0; per_chunk(size) * size].into());
        }
        places.chunks[chunk][start..start + name.len()].copy_from_slice(name.as_bytes());
        NameRef { place, length: u32::try_from(name.len()).unwrap_or(u32::MAX) }
    }

    pub(super) fn get(&self, name: NameRef) -> &str {
        let length = name.length as usize;
        let (number, size) = size_for(length);
        let (chunk, start) = split(name.place, size);
        let chunk = self.sizes.get(number).and_then(|places| places.chunks.get(chunk));
        let bytes = chunk.and_then(|chunk| chunk.get(start..start + length)).unwrap_or_default();
        str::from_utf8(bytes).unwrap_or_default()
    }

    pub(super) fn remove(&mut self, name: NameRef) {
        let (number, _) = size_for(name.length as usize);
        if let Some(places) = self.sizes.get_mut(number) {
            places.free.push(name.place);
        }
    }
}

/// Returns the number of the size that a name of so many bytes needs, and the size.
const fn size_for(length: usize) -> (usize, usize) {
    // From eight grains on, by eight grains.
    if length <= 8 * GRAIN {
        let grains = length.div_ceil(GRAIN);
        (grains, if grains == 0 { GRAIN } else { grains * GRAIN })
    } else {
        let size = length.next_multiple_of(8 * GRAIN);
        (7 + size / (8 * GRAIN), size)
    }
}

const fn per_chunk(size: usize) -> usize {
    if size < CHUNK { CHUNK / size } else { 1 }
}

const fn split(place: u32, size: usize) -> (usize, usize) {
    let (place, each) = (place as usize, per_chunk(size));
    (place / each, place % each * size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_length_come_back_and_places_are_reused() {
        let mut names = Names::default();
        let name = |length: usize, round: usize| {
            let letters = "abcdefghijklmnopqrstuvwxyz".chars().cycle();
            letters.skip(length + round).take(length).collect::<String>()
        };
        for round in 0..3 {
            let held: Vec<_> = (0..=5000).map(|length| names.insert(&name(length, round))).collect();
            for (length, held) in held.iter().enumerate() {
                assert_eq!(names.get(*held), name(length, round));
            }
            for held in held {
                names.remove(held);
            }
        }
        let chunks: usize = names.sizes.iter().map(|places| places.chunks.len()).sum();
        let most: usize = (0..=5000_usize).map(|length| length.next_multiple_of(64)).sum();
        assert!(chunks * CHUNK < 2 * most, "{chunks}");
    }

    #[test]
    fn many_names_of_one_size_share_chunks() {
        let mut names = Names::default();
        let held: Vec<_> = (0..10_000).map(|number| names.insert(&format!("name {number:05}"))).collect();
        assert_eq!(names.sizes[2].chunks.len(), 10_000_usize.div_ceil(CHUNK / 16));
        assert!((0..).zip(&held).all(|(number, held)| names.get(*held) == format!("name {number:05}")));
    }
}
