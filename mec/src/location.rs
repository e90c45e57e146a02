//! Where applications may run, as devices ask for it (`LocationConstraints`), and where nodes are.

use serde::{Deserialize, Serialize};

/// Where a device wants an application to run. Kept as it was given, so that answers repeat it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Constraint {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) country_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) civic_address_element: Option<Vec<CivicAddressElement>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) area: Option<Area>,
}

/// A part of a postal address (RFC 4776). The standard's file lets both be left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CivicAddressElement {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca_type: Option<serde_json::Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca_value: Option<String>,
}

/// A polygon of GeoJSON: its outer ring, then its holes; each point is longitude and latitude.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Area {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) coordinates: Option<Vec<Vec<Vec<f64>>>>,
}

/// Where a node is, as its operator says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Location {
    /// ISO 3166: two capitals.
    pub country: Option<String>,
    /// Longitude and latitude in degrees.
    pub point: Option<(f64, f64)>,
}

impl Constraint {
    /// Whether a node there would do. What cannot be judged, such as parts of postal addresses, asks for nothing.
    pub(crate) fn is_met_at(&self, location: &Location) -> bool {
        let country = match (&self.country_code, &location.country) {
            (Some(wanted), Some(here)) => wanted == here,
            // The area alone says where then.
            (Some(_), None) => self.area.is_some(),
            (None, _) => true,
        };
        let area = self.area.as_ref().and_then(|area| area.coordinates.as_deref());
        country && area.is_none_or(|rings| location.point.is_some_and(|point| is_within(point, rings)))
    }

    /// What is told of a node there.
    pub(crate) fn of(location: &Location) -> Self {
        // A polygon needs corners; a point is one whose corners are all the same.
        let area = location.point.map(|(longitude, latitude)| Area {
            kind: Some("Polygon".to_owned()),
            coordinates: Some(vec![vec![vec![longitude, latitude]; 4]]),
        });
        Self { country_code: location.country.clone(), civic_address_element: None, area }
    }
}

/// Whether a point lies within a polygon: inside an odd number of its rings.
fn is_within(point: (f64, f64), rings: &[Vec<Vec<f64>>]) -> bool {
    rings.iter().filter(|ring| is_inside(point, ring)).count() % 2 == 1
}

/// Whether a ray from the point crosses the ring an odd number of times. A corner is inside.
fn is_inside((x, y): (f64, f64), ring: &[Vec<f64>]) -> bool {
    let corners: Vec<(f64, f64)> = ring.iter().filter_map(|corner| Some((*corner.first()?, *corner.get(1)?))).collect();
    if corners.contains(&(x, y)) {
        return true;
    }
    let Some(last) = corners.last() else { return false };
    let mut before = *last;
    let mut inside = false;
    for &(here_x, here_y) in &corners {
        let (before_x, before_y) = before;
        let spans = (here_y > y) != (before_y > y);
        if spans && x < (before_x - here_x) * (y - here_y) / (before_y - here_y) + here_x {
            inside = !inside;
        }
        before = (here_x, here_y);
    }
    inside
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constraint(json: serde_json::Value) -> Constraint {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_country_and_an_area_say_where() {
        let pisa = Location { country: Some("IT".into()), point: Some((10.4, 43.7)) };
        let nowhere = Location::default();
        let met = |json, location| constraint(json).is_met_at(location);
        assert!(met(serde_json::json!({}), &pisa) && met(serde_json::json!({}), &nowhere));
        assert!(met(serde_json::json!({"countryCode": "IT"}), &pisa));
        assert!(!met(serde_json::json!({"countryCode": "DE"}), &pisa));
        assert!(!met(serde_json::json!({"countryCode": "IT"}), &nowhere));
        let ring = serde_json::json!([[10.0, 43.0], [11.0, 43.0], [11.0, 44.0], [10.0, 44.0], [10.0, 43.0]]);
        let hole = serde_json::json!([[10.3, 43.6], [10.5, 43.6], [10.5, 43.8], [10.3, 43.8], [10.3, 43.6]]);
        assert!(met(serde_json::json!({"area": {"coordinates": [ring]}}), &pisa));
        assert!(!met(serde_json::json!({"area": {"coordinates": [ring, hole]}}), &pisa), "it lies in the hole");
        assert!(!met(serde_json::json!({"area": {"coordinates": [ring]}}), &nowhere));
        for odd in [serde_json::json!([]), serde_json::json!([[]]), serde_json::json!([[[1.0]]])] {
            assert!(!met(serde_json::json!({"area": {"coordinates": odd}}), &pisa));
        }
    }

    #[test]
    fn what_is_told_of_a_node_is_met_by_it() {
        let pisa = Location { country: Some("IT".into()), point: Some((10.4, 43.7)) };
        assert!(Constraint::of(&pisa).is_met_at(&pisa));
    }
}
